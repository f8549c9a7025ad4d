package metered_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
	"muster.dev/muster/internal/store/metered"
	"muster.dev/muster/internal/store/storetest"
)

// ear keeps what was told.
type ear struct {
	mu    sync.Mutex
	calls map[string]int
	errs  map[string]error
	kinds map[string]int
}

func newEar() *ear {
	return &ear{calls: map[string]int{}, errs: map[string]error{}, kinds: map[string]int{}}
}

func (e *ear) told(op string, took time.Duration, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[op]++
	if err != nil {
		e.errs[op] = err
	}
	if took < 0 {
		e.errs[op] = errors.New("took less than no time")
	}
}

func (e *ear) happened(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kinds[kind]++
}

// TestConformance: being measured changes nothing.
func TestConformance(t *testing.T) {
	e := newEar()
	storetest.Run(t, func(t testing.TB, o storetest.Options) storetest.Subject {
		s := memory.New(memory.Options{Tenants: o.Tenants, MaxBacklog: o.MaxBacklog})
		t.Cleanup(func() { _ = s.Close() })
		return storetest.Subject{Store: metered.New(s, e.told, e.happened), Queue: metered.NewQueue(s.Queue(), e.told)}
	})
	for _, op := range []string{"submit", "task", "tasks", "change", "settle", "retry", "cancel", "put_sandbox", "claim", "sandboxes", "journal", "events", "put_setting", "post", "lease", "extend", "nack", "queue_stats"} {
		if e.calls[op] == 0 {
			t.Errorf("no call of %s was told", op)
		}
	}
}

// TestErrorsAreToldAsTheyAre and passed on as they are.
func TestErrorsAreToldAsTheyAre(t *testing.T) {
	e := newEar()
	under := memory.New(memory.Options{})
	s := metered.New(under, e.told, e.happened)
	if _, err := s.Task(t.Context(), "none"); !errors.Is(err, fleet.ErrNotFound) || !errors.Is(e.errs["task"], fleet.ErrNotFound) {
		t.Errorf("returned %v, told %v", err, e.errs["task"])
	}
	if _, err := s.AppendEvents(t.Context(), []fleet.Event{{Kind: "a", At: time.Now()}, {Kind: "b", At: time.Now()}, {Kind: "a", At: time.Now()}}); err != nil || e.kinds["a"] != 2 || e.kinds["b"] != 1 {
		t.Errorf("%v, events %v", err, e.kinds)
	}
	if err := s.Ping(t.Context()); err != nil || e.calls["ping"] != 1 {
		t.Errorf("%v, calls %v", err, e.calls)
	}
	defer s.Close()
	under.Fail("AppendEvents", fleet.ErrUnavailable)
	if _, err := s.AppendEvents(context.Background(), []fleet.Event{{Kind: "lost", At: time.Now()}}); err == nil || e.kinds["lost"] != 0 {
		t.Errorf("%v, and an event that was not journaled counts %d times", err, e.kinds["lost"])
	}
}
