package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) costRoutes(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteCost, "getCost", "What the fleet has cost, and who for", http.StatusNotFound, http.StatusUnprocessableEntity)
	op.Description = "From the ledger, in which each second of each node is charged once, to tasks and to causes of idleness; amounts are millionths of a US dollar. Full hours count."
	handle(s, api, op, s.cost)
	series := operation(http.MethodGet, v1alpha1.RouteCostSeries, "getCostSeries", "What the fleet has cost, hour by hour or day by day", http.StatusNotFound, http.StatusUnprocessableEntity)
	series.Description = "Hours for up to eight days, else days of UTC; at most 400 days. Each step's bill is what tasks took and the causes of idleness, which add up to it exactly."
	handle(s, api, series, s.costSeries)
	focus := operation(http.MethodGet, v1alpha1.RouteCostFocus, "getCostFocus", "What the fleet has cost, in the columns of FOCUS 1.2", http.StatusNotFound, http.StatusUnprocessableEntity)
	focus.Description = "A row for each hour and each kind of charge; at most 31 days."
	answerAs(&focus, "text/csv")
	handle(s, api, focus, s.costFocus)
}

// CostSpan is the time that a question about money is of.
type CostSpan struct {
	Since string `query:"since" doc:"From this time (RFC 3339) or for the time up to now (48h); absent is 30 days before until; at most 31 days by task"`
	Until string `query:"until" doc:"Up to this time (RFC 3339), or so long ago (1h); absent is now"`
}

type costInput struct {
	CostSpan
	By       string `query:"by" doc:"tenant, team, project, template, task, node, hour or label:KEY; absent: no split"`
	Fixed    int    `query:"fixed" minimum:"0" maximum:"1000000" doc:"Nodes of a fixed fleet to compare with, beside that of the same peak"`
	OffHours string `query:"offHours" doc:"Off-hours to tell the saving in, as 20:00-07:00"`
	Weekends bool   `query:"weekends" doc:"Saturdays and Sundays are off-hours, too"`
	Timezone string `query:"timezone" doc:"Of the off-hours, as Europe/Warsaw; absent is UTC"`
	Limit    int    `query:"limit" minimum:"0" maximum:"10000" doc:"Most groups, the dearest; absent is 1000"`
}

// query reads the time of a question.
func (s *Server) costQuery(in CostSpan) (q fleet.CostQuery, err error) {
	if s.Ledger == nil {
		return q, fmt.Errorf("others run the workers of this fleet, and what they cost is not charged here: %w", fleet.ErrNotFound)
	}
	q.Since, q.Until, err = s.times(in.Since, in.Until)
	return q, err
}

// times reads since and until of a query; what is empty is the zero time.
func (s *Server) times(since, until string) (from, to time.Time, err error) {
	if from, err = s.since(since); err != nil {
		return from, to, err
	}
	if to, err = s.since(until); err != nil {
		err = at("query.until", err)
	}
	return from, to, err
}

func (s *Server) cost(ctx context.Context, in *costInput) (*body[fleet.CostReport], error) {
	q, err := s.costQuery(in.CostSpan)
	if err != nil {
		return nil, err
	}
	q.By, q.Fixed, q.Weekends, q.Limit = in.By, in.Fixed, in.Weekends, in.Limit
	if q.OffFrom, q.OffUntil, err = v1alpha1.ParseOffHours(in.OffHours); err != nil {
		return nil, at("query.offHours", err)
	}
	if q.Zone, err = v1alpha1.ParseZone(in.Timezone); err != nil {
		return nil, at("query.timezone", err)
	}
	r, err := s.Ledger.Report(ctx, q)
	if err != nil {
		return nil, inQuery(err)
	}
	return reply(r), nil
}

// inQuery names a mistake by its parameter.
func inQuery(err error) error {
	var e *fleet.FieldError
	if errors.As(err, &e) {
		return at("query."+e.Field, err)
	}
	return err
}

func (s *Server) costSeries(ctx context.Context, in *CostSpan) (*body[fleet.CostSeries], error) {
	q, err := s.costQuery(*in)
	if err != nil {
		return nil, err
	}
	r, err := s.Ledger.Series(ctx, q.Since, q.Until)
	if err != nil {
		return nil, inQuery(err)
	}
	return reply(r), nil
}

func (s *Server) costFocus(ctx context.Context, in *CostSpan) (*huma.StreamResponse, error) {
	q, err := s.costQuery(*in)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer // whole before the first byte goes: an error is then told as one
	if err := s.Ledger.Focus(ctx, q, &out); err != nil {
		return nil, inQuery(err)
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Content-Type", "text/csv; charset=utf-8")
		_, _ = c.BodyWriter().Write(out.Bytes()) // the client may be gone
	}}, nil
}

// costOf is what a task has cost; nil where that is not known, which the rest
// does without.
func (s *Server) costOf(ctx context.Context, id fleet.TaskID) *v1alpha1.TaskCostView {
	if s.Ledger == nil {
		return nil
	}
	c, err := s.Ledger.TaskCost(ctx, id)
	if err != nil {
		return nil
	}
	return &v1alpha1.TaskCostView{ComputeMicroUSD: c.MicroUSD, BusySeconds: c.Busy.Seconds()}
}
