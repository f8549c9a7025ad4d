package main

import (
	"context"
	"sync"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
)

// teller tells of what happens to a fleet, and when it is to end.
type teller struct {
	store   fleet.Store
	wake    <-chan struct{}
	release func()
	after   int64
	end     chan struct{}
	once    sync.Once
}

func (t *teller) open(ctx context.Context, s fleet.Store) {
	t.store, t.end = s, make(chan struct{})
	t.wake, t.release = s.WakeEvents()
	// What was told before is not told again.
	if last, err := s.Events(ctx, fleet.EventFilter{Limit: 1, Last: true}); err == nil && len(last) > 0 {
		t.after = last[0].Seq
	}
}

func (t *teller) close() {
	t.once.Do(func() {
		close(t.end)
		t.release()
	})
}

// told are the kinds of events that are worth being told at the object, and
// whether they warn.
var toldKinds = map[string]bool{
	"scale_out": false, "scale_in": false, "breaker_open": true, "gave_up": true, "signals_missing": true,
	"budget_binds": true, "budget_free": false, "budget_warning": true, "dedication_breach": true, "dedication_restored": false, "node_failed": true,
}

// events are those since the last call.
func (t *teller) events(ctx context.Context) []operator.Event {
	select {
	case <-t.wake:
	default:
		return nil
	}
	var out []operator.Event
	kinds := make([]string, 0, len(toldKinds))
	for k := range toldKinds {
		kinds = append(kinds, k)
	}
	found, err := t.store.Events(ctx, fleet.EventFilter{After: t.after, Kinds: kinds, Limit: 100})
	if err != nil {
		return nil // they are told with the next ones
	}
	for _, e := range found {
		t.after = max(t.after, e.Seq)
		out = append(out, operator.Event{Warning: toldKinds[e.Kind], Reason: camel(e.Kind), Message: e.Reason})
	}
	return out
}

// camel is a kind as Kubernetes writes reasons: ScaleOut.
func camel(kind string) string {
	out, up := []byte{}, true
	for i := range len(kind) {
		switch c := kind[i]; {
		case c == '_':
			up = true
		case up && c >= 'a' && c <= 'z':
			out, up = append(out, c-'a'+'A'), false
		default:
			out, up = append(out, c), false
		}
	}
	return string(out)
}
