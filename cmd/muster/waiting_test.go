package main

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Who waits for a queued task is told why: once for each reason, whatever its
// numbers, and not while the task runs.
func TestWaitingIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var view atomic.Pointer[v1alpha1.TaskView] // the teller reads it meanwhile
		view.Store(&v1alpha1.TaskView{State: fleet.TaskQueued})
		reasons := []struct {
			until time.Duration
			text  string
		}{
			{6 * time.Second, "waiting for 5s: 3 starts failed in a row; next try in 4s: create sandbox sk8bcn1x7mjn4qmaxvgqk: image"},
			{11 * time.Second, "waiting for 10s: 4 starts failed in a row; next try in 8.5s: create sandbox sk8bcv30cxi2idpun4esx: image"},
			{16 * time.Second, "waiting for 15s: 5 starts failed in a row; one probe start"},
			{time.Minute, "waiting for 20s: 5 starts failed in a row; next try in 8.5s: create sandbox sk8bcv30cxi2idpun4esx: image"},
			{time.Hour, "waiting for 1m0s: capacity.sandboxes.max = 6"},
		}
		var told []time.Duration
		w := waitTeller{
			task: func(context.Context) (v1alpha1.TaskView, error) { return *view.Load(), nil },
			explain: func(context.Context) (v1alpha1.ExplanationView, error) {
				for _, r := range reasons {
					if time.Since(began) < r.until {
						return v1alpha1.ExplanationView{Task: view.Load(), Summary: r.text}, nil
					}
				}
				return v1alpha1.ExplanationView{}, errors.New("no reason left")
			},
			tell: func(string) { told = append(told, time.Since(began)) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := []time.Duration{5 * time.Second, 15 * time.Second, time.Minute}
		if !slices.Equal(told, want) {
			t.Errorf("told at %v, want %v", told, want)
		}
		view.Store(&v1alpha1.TaskView{State: fleet.TaskRunning})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if !slices.Equal(told, want) {
			t.Errorf("told while it ran: %v", told)
		}
		cancel()
		<-done
	})
}
