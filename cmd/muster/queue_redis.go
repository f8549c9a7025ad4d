package main

import (
	"context"
	"errors"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func openRedis(context.Context, *v1alpha1.RedisQueue, queueOptions) (fleet.Source, error) {
	return nil, errors.ErrUnsupported
}
