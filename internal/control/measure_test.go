package control

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// ear keeps what was measured.
type ear struct {
	mu      sync.Mutex
	stages  map[string][]time.Duration
	created map[string]int
	decided []fleet.Decided
	late    int
}

func newEar() *ear { return &ear{stages: map[string][]time.Duration{}, created: map[string]int{}} }

func (e *ear) Decided(d fleet.Decided) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.decided = append(e.decided, d)
}

func (e *ear) Reacted(stage string, took time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stages[stage] = append(e.stages[stage], took)
}

func (e *ear) Created(template, outcome string, _ time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.created[template+" "+outcome]++
}

func (e *ear) Late() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.late++
}

func (e *ear) Booted(time.Duration, bool) {}

// TestReactionIsMeasured: once for each time that tasks find no sandbox, in
// stages that add up, and not at all while the stock lasts.
func TestReactionIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newEar()
		w := newWorld(t, fake.Options{Lead: lead(900 * time.Millisecond), Script: busy(20 * time.Second)})
		w.meter = m
		w.spec.Policy.Objective = 500 * time.Millisecond
		w.up()
		sleep(5 * time.Second)
		w.submit(10)
		sleep(2 * time.Minute)
		w.submit(10)
		sleep(2 * time.Minute)
		l, by := w.leadTimes()
		v, err := w.engine.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.end()
		n := len(m.stages[fleet.ReactTotal])
		if n < 1 || n > 2 || len(m.stages[fleet.ReactSupply]) != n {
			t.Fatalf("reactions %v; want one for each burst that found no sandbox", m.stages)
		}
		sum := m.stages[fleet.ReactDetect][0] + m.stages[fleet.ReactDecide][0] + m.stages[fleet.ReactSupply][0]
		if total := m.stages[fleet.ReactTotal][0]; sum != total || total < 900*time.Millisecond || total > 2*time.Second {
			t.Errorf("stages add up to %s, in all %s; a start takes 900 ms", sum, total)
		}
		// The meter, the lead times and the view are told of the same reactions.
		if s := by[fleet.StageReact]; len(l.Reactions) != n || s.Samples != n || v.ScaleOut.Samples != n || v.ScaleOut.MaxSeconds != s.Max.Seconds() || v.ScaleOut.P50Seconds != s.P50.Seconds() {
			t.Errorf("%d reactions are measured, %d told, %+v of them in the view", n, len(l.Reactions), v.ScaleOut)
		}
		for i, r := range l.Reactions { // newest first
			if got, want := m.stages[fleet.ReactTotal][n-1-i], r.Ready.Sub(r.Due); got != want {
				t.Errorf("the meter heard of %s, and %s are told", got, want)
			}
		}
		if m.created["default ready"] < 10 {
			t.Errorf("starts %v", m.created)
		}
		if m.late != 10 {
			t.Errorf("%d late starts; the first 10 tasks waited for longer than 500 ms", m.late)
		}
		causes := map[string]int{}
		for _, d := range m.decided {
			for _, why := range d.Why {
				causes[why.Layer+" "+why.Cause]++
			}
		}
		if causes["sandboxes demand"] == 0 || causes["nodes "] > 0 {
			t.Errorf("reasons %v", causes)
		}
	})
}

// TestFailedStartsAreMeasured by why they failed.
func TestFailedStartsAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newEar()
		w := newWorld(t, fake.Options{CreateErr: func(fleet.SandboxSpec) error {
			return &fleet.ReasonError{Reason: fleet.ReasonPrepare, Err: fmt.Errorf("npm ci: exit 1")}
		}})
		w.meter = m
		w.up()
		sleep(time.Second)
		w.submit(1)
		sleep(time.Minute)
		w.end()
		if m.created["default prepare"] == 0 || m.created["default ready"] != 0 || len(m.stages[fleet.ReactTotal]) != 0 {
			t.Errorf("starts %v, reactions %v", m.created, m.stages)
		}
	})
}
