package plan

import (
	"strings"
	"testing"
	"time"
)

func TestConsumers(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	p := &ConsumerPolicy{Min: 2, Max: 6, Sandboxes: 500}
	for _, c := range []struct {
		name string
		load ConsumerLoad
		n    int
		says string
	}{
		{"nothing to do", ConsumerLoad{}, 2, "raised to minReplicas 2"},
		{"by sandboxes", ConsumerLoad{Sandboxes: 1501}, 4, "1501 sandboxes, 500 for each"},
		{"by leases, not measured yet", ConsumerLoad{Rate: 179}, 3, "60 a second for each"},
		{"by leases, measured", ConsumerLoad{Rate: 300, Each: 250}, 2, "150 a second for each"},
		{"bounded", ConsumerLoad{Sandboxes: 9000}, 6, "bounded by maxReplicas 6"},
	} {
		got := Consumers(now, &c.load, p, ConsumerTarget{})
		if got.N != c.n || !strings.Contains(got.Reason, c.says) {
			t.Errorf("%s: %d (%s), want %d (%s)", c.name, got.N, got.Reason, c.n, c.says)
		}
	}
}

func TestConsumersGoOneByOneAndUpAtOnce(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	p := &ConsumerPolicy{Min: 1, Max: 10, Sandboxes: 100}
	at := func(sandboxes int, before ConsumerTarget) ConsumerTarget {
		return Consumers(now, &ConsumerLoad{Sandboxes: sandboxes}, p, before)
	}
	s := at(100, ConsumerTarget{})
	if s = at(500, s); s.N != 5 {
		t.Fatalf("up: %d", s.N)
	}
	begin, changes := now, []time.Duration{}
	for range 3600 {
		now = now.Add(time.Second)
		before := s.N
		if s = at(200, s); s.N != before {
			changes = append(changes, now.Sub(begin))
			if s.N != before-1 {
				t.Fatalf("from %d to %d at once", before, s.N)
			}
		}
	}
	if s.N != 2 || len(changes) != 3 || changes[0] < calm || changes[1]-changes[0] < calm {
		t.Errorf("%d at last, changes at %v", s.N, changes)
	}
	// Load that comes and goes within the calm keeps what there is.
	s = at(500, s)
	for i := range 20 {
		now = now.Add(time.Minute)
		if s = at([]int{200, 480}[i%2], s); s.N != 5 {
			t.Fatalf("minute %d: %d", i, s.N)
		}
	}
	// A lower bound of the fleet's file counts at once.
	p.Max = 2
	if s = at(500, s); s.N != 2 {
		t.Errorf("maxReplicas 2: %d", s.N)
	}
}
