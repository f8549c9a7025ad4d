package main

import (
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
)

// Waits are counted from the start of the control plane: what came before it
// is not called nothing.
func TestStartObjective(t *testing.T) {
	for _, c := range []struct {
		p99  float64
		up   time.Duration
		want string
	}{
		{0, 4 * time.Second, "no task has started since muster is up; objective 5s"},
		{0, 2 * time.Hour, "no task has started within the last hour; objective 5s"},
		{2, time.Minute, "p50 1s, p99 2s since muster is up; objective 5s met"},
		{6, 2 * time.Hour, "p50 1s, p99 6s within the last hour; objective 5s missed"},
	} {
		v := v1alpha1.StartView{P50Seconds: 1, P99Seconds: c.p99, ObjectiveSeconds: 5}
		if got := startObjective(v, c.up); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
