package main

import (
	"muster.dev/muster/internal/doctor"
)

// runtimeProbe tries a runtime with a throw-away sandbox.
func runtimeProbe(dataDir string) doctor.Probe {
	return nil
}
