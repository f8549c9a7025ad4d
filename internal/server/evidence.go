package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) evidenceRoute(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteEvidence, "getEvidence", "What can be shown of the fleet from its records", http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests)
	op.Description = "Dedicated compute and its breaches, changes of the specification, scaling events with reasons, reaction times with the cause of each breach, isolation as the kernel told it, cost of an agent-hour by week; times that nobody looked are gaps. At most 31 days; one at a time, 429 meanwhile."
	handle(s, api, op, s.evidence)
}

func (s *Server) evidence(ctx context.Context, in *struct {
	Since string `query:"since" doc:"From this time (RFC 3339), or in the time up to now (720h); absent is 30 days before until"`
	Until string `query:"until" doc:"Up to this time (RFC 3339), or so long ago (1h); absent is now"`
}) (*body[fleet.Evidence], error) {
	if s.Evidence == nil {
		return nil, fmt.Errorf("this control plane gathers no evidence: %w", fleet.ErrNotFound)
	}
	var q fleet.EvidenceQuery
	var err error
	if q.Since, q.Until, err = s.times(in.Since, in.Until); err != nil {
		return nil, err
	}
	if !s.gathering.TryLock() {
		return nil, fmt.Errorf("evidence is being gathered; ask again when it is done: %w", fleet.ErrFull)
	}
	defer s.gathering.Unlock()
	out, err := s.Evidence(ctx, q)
	if err != nil {
		return nil, inQuery(err)
	}
	return reply(out), nil
}
