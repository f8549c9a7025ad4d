package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Adviser simulates the fleet under other settings. Errors are a
// *fleet.FieldError for each problem of the question, or wrap the kinds of
// package fleet: ErrNotFound with no history, ErrFull while it answers another
// question.
type Adviser interface {
	// WhatIf takes up to a minute.
	WhatIf(ctx context.Context, q fleet.WhatIfQuery) (fleet.WhatIf, error)
	// Advice takes as long.
	Advice(ctx context.Context, q fleet.AdviceQuery) (fleet.Advice, error)
}

func (s *Server) adviceRoutes(api huma.API) {
	op := operation(http.MethodPost, v1alpha1.RouteWhatIf, "askWhatIf", "What other settings would have cost, and how long tasks would have waited",
		http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests)
	op.Description = "The tasks of the fleet's own history go through the simulator, which drives the planner that sizes the fleet: as the fleet is, with a patch of its spec, and under rival policies. At most the newest 100,000 tasks of 366 days; one question at a time, 429 while another is answered. Nothing is changed."
	handle(s, api, op, s.whatIf)
	describeBody[v1alpha1.WhatIfRequest](api, v1alpha1.RouteWhatIf, http.MethodPost)
	advice := operation(http.MethodGet, v1alpha1.RouteAdvice, "getAdvice", "What could be set better, from measured use and the simulator on the fleet's own history",
		http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests)
	advice.Description = "Each item has what it saves, what becomes of the waits, and the patch that POST /v1/fleet/patch takes. What was looked at and is not advised is in withheld, with the reason. One question at a time, 429 while another is answered."
	handle(s, api, advice, s.advice)
}

func (s *Server) advice(ctx context.Context, in *struct {
	Since    string `query:"since" doc:"Tasks that arrived from this time on (RFC 3339), or in the time up to now (336h); absent is 14 days before until"`
	Until    string `query:"until" doc:"Up to this time (RFC 3339), or so long ago (1h); absent is now"`
	Timezone string `query:"timezone" doc:"Of the peaks that floors are advised for, as Europe/Warsaw; absent is UTC"`
}) (*body[fleet.Advice], error) {
	if err := s.hasAdviser(); err != nil {
		return nil, err
	}
	var q fleet.AdviceQuery
	var err error
	if q.Since, q.Until, err = s.times(in.Since, in.Until); err != nil {
		return nil, err
	}
	if q.Zone, err = v1alpha1.ParseZone(in.Timezone); err != nil {
		return nil, at("query.timezone", err)
	}
	out, err := s.Adviser.Advice(ctx, q)
	if err != nil {
		return nil, inQuery(err)
	}
	return reply(out), nil
}

func (s *Server) whatIf(ctx context.Context, in *struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	RawBody     []byte `contentType:"application/json"`
}) (*body[fleet.WhatIf], error) {
	var ask v1alpha1.WhatIfRequest
	if err := decodeBody(in.ContentType, in.RawBody, &ask); err != nil {
		return nil, err
	}
	if err := s.hasAdviser(); err != nil {
		return nil, err
	}
	q := fleet.WhatIfQuery{Patch: ask.Patch, Policies: ask.Policies}
	var err error
	if q.Since, err = s.since(ask.Since); err != nil {
		return nil, at("body.since", err)
	}
	if q.Until, err = s.since(ask.Until); err != nil {
		return nil, at("body.until", err)
	}
	out, err := s.Adviser.WhatIf(ctx, q)
	if err != nil {
		return nil, inBody(err)
	}
	return reply(out), nil
}

func (s *Server) hasAdviser() error {
	if s.Adviser == nil {
		return fmt.Errorf("others run the workers of this fleet, so that it has no history of its own to simulate: %w", fleet.ErrNotFound)
	}
	return nil
}

// inBody names a mistake by its field of the body; those of a patched fleet have
// their path already.
func inBody(err error) error {
	var e *fleet.FieldError
	if errors.As(err, &e) && len(fieldErrors(err)) == 1 {
		switch e.Field {
		case "patch", "since", "until":
			return at("body."+e.Field, err)
		}
	}
	return err
}
