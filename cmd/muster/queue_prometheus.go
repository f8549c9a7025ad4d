package main

import (
	"context"
	"errors"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func openPrometheus(context.Context, *v1alpha1.PrometheusSignal, queueOptions) (fleet.Signal, error) {
	return nil, errors.ErrUnsupported
}
