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

const (
	// mostDecisions bounds a page of decisions in number, and decisionBytes in
	// size: one decision of a large fleet is hundreds of kilobytes.
	mostDecisions = 1000
	decisionBytes = 8 << 20
	// decisionBatch is how many are read from the store at once, so that what is
	// read and does not fit the page is little.
	decisionBatch = 32
)

func (s *Server) decisionRoutes(api huma.API) {
	list := operation(http.MethodGet, v1alpha1.RouteDecisions, "listDecisions", "The journaled decisions, oldest first, for reading and replay")
	list.Description = "A page ends at limit or at 8 MiB, whichever comes first; after in the answer leads to the next one. The policy of a decision is told by its digest: GET /v1/policies/{digest}."
	handle(s, api, list, s.decisions)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteDecision, "getDecision", "One journaled decision", http.StatusNotFound), s.decision)
	handle(s, api, operation(http.MethodGet, v1alpha1.RoutePolicy, "getPolicy", "A policy that journaled decisions were made under", http.StatusNotFound), s.policy)
}

type decisionsInput struct {
	After   int64  `query:"after" minimum:"0" doc:"Behind this seq"`
	Limit   int    `query:"limit" minimum:"0" maximum:"1000" doc:"At most; 0 is 100"`
	Since   string `query:"since" doc:"At or after this time (RFC 3339) or in the time up to now (2h)"`
	Until   string `query:"until" doc:"At or before this time (RFC 3339), or so long before now (10m)"`
	Changed bool   `query:"changed" doc:"Only those that changed something or said something new"`
}

func (s *Server) decisionFilter(in *decisionsInput) (fleet.DecisionFilter, error) {
	f := fleet.DecisionFilter{After: in.After, Limit: in.Limit, Changed: in.Changed}
	if f.Limit == 0 {
		f.Limit = 100
	}
	var err error
	if f.Since, f.Until, err = s.times(in.Since, in.Until); err != nil {
		return f, err
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Since) {
		return f, &fleet.FieldError{
			Field: "query.until", Wrong: fmt.Sprintf("%s is before since, %s", f.Until.Format(time.RFC3339), f.Since.Format(time.RFC3339)),
			Right: "a time after since",
		}
	}
	return f, nil
}

func (s *Server) decisions(ctx context.Context, in *decisionsInput) (*body[v1alpha1.DecisionList], error) {
	f, err := s.decisionFilter(in)
	if err != nil {
		return nil, err
	}
	out := v1alpha1.DecisionList{Decisions: []v1alpha1.DecisionView{}}
	left, size := f.Limit, 0
	for {
		f.Limit = min(left, decisionBatch)
		read, err := s.Store.Decisions(ctx, f)
		if err != nil {
			return nil, err
		}
		for i := range read {
			d := &read[i]
			n := len(d.Observation) + len(d.Plan) + len(d.State)
			if size += n; size > decisionBytes && len(out.Decisions) > 0 {
				out.After = f.After
				return reply(out), nil
			}
			out.Decisions = append(out.Decisions, v1alpha1.NewDecisionView(*d))
			f.After = d.Seq
			left--
		}
		if len(read) < f.Limit {
			return reply(out), nil
		}
		if left == 0 {
			out.After = f.After
			return reply(out), nil
		}
	}
}

func (s *Server) decision(ctx context.Context, in *seqPath) (*body[v1alpha1.DecisionView], error) {
	d, err := s.Store.Decision(ctx, in.Seq)
	if err != nil {
		return nil, missing(err, "decision", in.Seq)
	}
	return reply(v1alpha1.NewDecisionView(d)), nil
}

func (s *Server) policy(ctx context.Context, in *struct {
	Digest string `path:"digest" pattern:"^[0-9a-f]{64}$" doc:"As a decision names it"`
}) (*body[v1alpha1.PolicyView], error) {
	p, err := s.Store.Policy(ctx, in.Digest)
	if errors.Is(err, fleet.ErrNotFound) {
		return nil, fmt.Errorf("no decision on record was made under policy %s: %w", in.Digest, fleet.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return reply(v1alpha1.PolicyView{Digest: in.Digest, Policy: p}), nil
}
