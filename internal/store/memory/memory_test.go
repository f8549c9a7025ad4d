package memory_test

import (
	"context"
	"errors"
	"testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/store/memory"
	"muster.dev/muster/internal/store/storetest"
)

func TestQueue(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, o queuetest.Options) queuetest.Subject {
		s := memory.New(memory.Options{Tenants: o.Tenants})
		t.Cleanup(func() { _ = s.Close() })
		return queuetest.Embedded(s, s.Queue())
	})
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB, o storetest.Options) storetest.Subject {
		s := memory.New(memory.Options{Tenants: o.Tenants, MaxBacklog: o.MaxBacklog})
		t.Cleanup(func() { _ = s.Close() })
		return storetest.Subject{Store: s, Queue: s.Queue()}
	})
}

func TestFail(t *testing.T) {
	ctx := context.Background()
	s := memory.New(memory.Options{})
	defer s.Close()
	s.FailOnce("Submit", fleet.ErrFull)
	one := []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p"}}}
	if _, err := s.Submit(ctx, one); !errors.Is(err, fleet.ErrFull) {
		t.Errorf("first submit: %v", err)
	}
	if _, err := s.Submit(ctx, one); err != nil {
		t.Errorf("second submit: %v", err)
	}
	s.Fail("Stats", fleet.ErrUnavailable)
	for range 2 {
		if _, err := s.Queue().Stats(ctx); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("stats: %v", err)
		}
	}
	s.Fail("Stats", nil)
	if st, err := s.Queue().Stats(ctx); err != nil || st.Backlog != 1 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(ctx); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("ping after close: %v", err)
	}
}
