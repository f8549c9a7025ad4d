package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) shadowRoute(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteShadow, "getShadow", "What Muster would have had, beside what there was", http.StatusNotFound, http.StatusUnprocessableEntity)
	op.Description = "Of a fleet of mode scale or shadow, hour by hour: the sandboxes and nodes that Muster asked for, the workers that there were where their number can be read, and the tasks that waited under either."
	handle(s, api, op, s.shadow)
}

type shadowInput struct {
	Since string `query:"since" doc:"From this time (RFC 3339) or for the time up to now (48h); absent is all that is kept"`
}

func (s *Server) shadow(ctx context.Context, in *shadowInput) (*body[fleet.Shadow], error) {
	since, err := s.since(in.Since)
	if err != nil {
		return nil, err
	}
	c, err := s.Engine.Shadow(ctx, since)
	if err != nil {
		return nil, err
	}
	return reply(c), nil
}
