package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
)

func (s *Server) leadTimesRoute(api huma.API) {
	op := operation(http.MethodGet, v1alpha1.RouteLeadTimes, "getLeadTimes", "How long the fleet takes to react, stage by stage")
	op.Description = "Of the newest samples of each stage: from a task that finds no sandbox over the decision, the node, the image, the start and the template's prepare commands to the first instruction; and the newest such reactions one by one. Image, turn, start and prepare are told apart on one machine; in a cluster they are one stage, sandbox."
	handle(s, api, op, s.leadTimes)
}

func (s *Server) leadTimes(ctx context.Context, _ *struct{}) (*body[v1alpha1.LeadTimes], error) {
	l, err := s.Engine.LeadTimes(ctx)
	if err != nil {
		return nil, err
	}
	return reply(v1alpha1.NewLeadTimes(l, s.Fleet())), nil
}
