package advise

import (
	"context"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/whatif"
)

// Service answers the API: what-if questions, and advice, one at a time.
type Service struct {
	*whatif.Service
	// Forecast names the peaks of the week.
	Forecast func(context.Context, fleet.ForecastQuery) (fleet.Forecast, error)
	// Fleet is the one in force.
	Fleet func() *v1alpha1.Fleet
}

// lookFor is how long levers are tried; what is left of whatif.Patience is for
// the answer.
const lookFor = whatif.Patience - 5*time.Second

// Advice advises on the history of a time. Errors are those of WhatIf.
func (s *Service) Advice(ctx context.Context, q fleet.AdviceQuery) (fleet.Advice, error) {
	outer, end, err := s.Begin(ctx)
	if err != nil {
		return fleet.Advice{}, err
	}
	defer end()
	ctx, cancel := context.WithTimeout(outer, lookFor)
	defer cancel()
	lab, err := s.Lab(outer, q.Since, q.Until)
	if err != nil {
		return fleet.Advice{}, err
	}
	written, err := s.Written(outer)
	if err != nil {
		return fleet.Advice{}, err
	}
	in := Input{Lab: lab, Fleet: s.Fleet(), Written: written, Apply: s.Apply, Now: lab.Now}
	f, err := s.Forecast(outer, fleet.ForecastQuery{Zone: q.Zone})
	if err != nil {
		return fleet.Advice{}, err
	}
	in.Forecast = &f
	return Make(ctx, in)
}
