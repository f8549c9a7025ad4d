package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/internal/fleet"
)

// health is the answer of the two health routes.
type health struct {
	Status string `json:"status" enum:"ok"`
}

func (s *Server) healthRoutes(api huma.API) {
	open := func(path, id, summary string, errors ...int) huma.Operation {
		return huma.Operation{
			Method: http.MethodGet, Path: path, OperationID: id, Summary: summary, Tags: []string{"health"},
			Security: []map[string][]string{{}}, Errors: errors,
		}
	}
	handle(s, api, open("/healthz", "healthz", "Whether the process answers"), func(context.Context, *struct{}) (*body[health], error) {
		return reply(health{"ok"}), nil
	})
	handle(s, api, open("/readyz", "readyz", "Whether the control plane can work", http.StatusServiceUnavailable), s.ready)
}

func (s *Server) ready(ctx context.Context, _ *struct{}) (*body[health], error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if s.base.Err() != nil {
		return nil, fmt.Errorf("the server is stopping: %w", fleet.ErrUnavailable)
	}
	if err := s.Store.Ping(ctx); err != nil {
		return nil, &statusError{status: http.StatusServiceUnavailable, retry: 1, text: "the store does not answer: " + err.Error()}
	}
	if s.Ready != nil {
		if err := s.Ready(ctx); err != nil {
			return nil, &statusError{status: http.StatusServiceUnavailable, retry: 1, text: err.Error()}
		}
	}
	return reply(health{"ok"}), nil
}
