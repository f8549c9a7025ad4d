package main

import (
	"context"
	"errors"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func openTemporal(context.Context, *v1alpha1.TemporalSignal, queueOptions) (fleet.Signal, error) {
	return nil, errors.ErrUnsupported
}
