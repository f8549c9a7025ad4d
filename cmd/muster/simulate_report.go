package main

import (
	"errors"

	"muster.dev/muster/internal/sim"
)

func writeReport(_ *shell, _ *simulateOptions, _ *sim.Config, _ *sim.Survey, _ []sim.Result) error {
	return errors.New("not yet")
}
