package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) forecastRoute(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteForecast, "getForecast", "What the fleet expects of its load, from its own history", http.StatusNotFound, http.StatusUnprocessableEntity)
	op.Description = "Quantiles of arrivals and of demand for each step of the horizon, the weekly pattern in half hours, and its peaks in words. basis says how much history that rests on and what is assumed."
	handle(s, api, op, s.forecast)
}

type forecastInput struct {
	Horizon  string `query:"horizon" doc:"From 1m to 2w, as 90m, 6h, 3d or 2w; absent is 1d"`
	Template string `query:"template" doc:"Of this template alone; absent is the whole fleet"`
	Timezone string `query:"timezone" doc:"Of the weekly pattern, as Europe/Warsaw; absent is UTC"`
	Backtest bool   `query:"backtest" doc:"Also how such forecasts did in the past, beside simple rivals"`
}

func (s *Server) forecast(ctx context.Context, in *forecastInput) (*body[fleet.Forecast], error) {
	q := fleet.ForecastQuery{Template: in.Template, Backtest: in.Backtest, Zone: time.UTC}
	var err error
	if q.Horizon, err = v1alpha1.ParseHorizon(in.Horizon); err != nil {
		return nil, at("query.horizon", err)
	}
	if q.Zone, err = v1alpha1.ParseZone(in.Timezone); err != nil {
		return nil, at("query.timezone", err)
	}
	f, err := s.Engine.Forecast(ctx, q)
	if errors.Is(err, fleet.ErrNotFound) {
		return nil, fmt.Errorf("there is no template %q: %w", shorten(in.Template), fleet.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return reply(f), nil
}

// at names the field that a mistake is in.
func at(field string, err error) error {
	var e *fleet.FieldError
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Field = field
	return &named
}
