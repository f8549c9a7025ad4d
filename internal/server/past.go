package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) pastRoute(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteFleetPast, "getFleetPast", "The fleet over weeks and months, from its ledger", http.StatusNotFound, http.StatusUnprocessableEntity)
	op.Description = "Running and warm sandboxes, nodes, tasks that ended and the bill, by steps of hours or days of UTC, for as long as the ledger is kept (400 days). The journal, which GET " + v1alpha1.RouteFleetSeries + " reads, is finer and tells demand and decisions, but goes back days to weeks."
	handle(s, api, op, s.past)
}

type pastInput struct {
	Since string `query:"since" doc:"From this time (RFC 3339) or for the time up to now (2160h); absent is 90 days before until; at most 400 days"`
	Until string `query:"until" doc:"Up to this time (RFC 3339), or so long ago (1h); absent is now"`
	Step  string `query:"step" doc:"1h, 2h, 3h, 4h, 6h, 8h or 12h, for at most 100 days, or whole days as 24h; absent: one that gives at most about 400 points"`
}

func (s *Server) past(ctx context.Context, in *pastInput) (*body[fleet.Past], error) {
	span, err := s.costQuery(CostSpan{Since: in.Since, Until: in.Until})
	if err != nil {
		return nil, err
	}
	q := fleet.PastQuery{Since: span.Since, Until: span.Until}
	if in.Step != "" {
		if q.Step, err = time.ParseDuration(in.Step); err != nil || q.Step <= 0 {
			return nil, &fleet.FieldError{Field: "query.step", Wrong: fmt.Sprintf("%q is not allowed", shorten(in.Step)), Right: "1h, 2h, 3h, 4h, 6h, 8h, 12h, or whole days as 24h"}
		}
	}
	p, err := s.Ledger.Past(ctx, q)
	if err != nil {
		return nil, inQuery(err)
	}
	return reply(p), nil
}
