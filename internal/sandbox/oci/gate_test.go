package oci

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestGate: few at once while nobody waits for a task's sandbox, many then.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(3, 1)
		ctx, cancel := context.WithCancel(t.Context())
		in := make(chan func(), 10)
		begin := func(ctx context.Context) {
			go func() {
				if leave, err := g.enter(ctx); err == nil {
					in <- leave
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		has := func(want int) {
			t.Helper()
			if synctest.Wait(); len(in) != want {
				t.Fatalf("%d have a turn, want %d", len(in), want)
			}
		}
		for range 4 {
			begin(t.Context())
		}
		begin(ctx) // the last in line gives up
		has(1)
		g.hurry(true)
		has(3)
		cancel()
		has(3)
		g.hurry(false)
		leave := <-in
		leave()
		leave() // counts once
		has(2)
		(<-in)()
		has(1)
		(<-in)()
		has(1)
		(<-in)()
		if g.busy != 0 || len(g.waiting) != 0 {
			t.Errorf("%d busy and %d waiting in the end", g.busy, len(g.waiting))
		}
	})
}
