package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
)

// deaf is a queue that cannot be read while it is told so.
type deaf struct {
	fleet.Queue
	now atomic.Bool
}

func (d *deaf) Stats(ctx context.Context) (fleet.QueueStats, error) {
	if d.now.Load() {
		return fleet.QueueStats{}, fmt.Errorf("no answer: %w", fleet.ErrUnavailable)
	}
	return d.Queue.Stats(ctx)
}

// feed submits a task every ten seconds.
func (w *world) feed(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); sleep(10 * time.Second) {
		w.submit(1)
	}
}

func (w *world) forecast(q fleet.ForecastQuery) fleet.Forecast {
	w.t.Helper()
	f, err := w.engine.Forecast(w.t.Context(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// seen checks how many minutes of the fleet's history are known, and the tasks
// in them.
func (w *world) seen(name string, minutes, tasks int) {
	w.t.Helper()
	w.engine.mu.Lock()
	h := w.engine.histories.of[name].Clone()
	w.engine.mu.Unlock()
	s := h.Series()
	if got := s.Known(); got < minutes-1 || got > minutes+1 {
		w.t.Errorf("%q: %d minutes known, want %d", name, got, minutes)
	}
	if got := s.Tasks(); math.Abs(float64(got-tasks)) > 8 {
		w.t.Errorf("%q: %d tasks, want %d", name, got, tasks)
	}
}

// TestHistoryOutlivesTheProcess: over an orderly stop, over kill -9, and what
// was not watched is unknown.
func TestHistoryOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(15 * time.Second)})
		w.up()
		w.feed(70 * time.Minute)
		w.down()
		sleep(20 * time.Minute)
		w.submit(7) // while nobody looks

		m := &mortal{Store: w.store, left: math.MaxInt, dead: make(chan struct{})}
		w.upOn(m, mortalQueue{w.store.Queue(), m})
		w.feed(30 * time.Minute)
		w.seen("", 100, 600)
		m.mu.Lock()
		m.left = 0
		m.mu.Unlock()
		w.kill()
		sleep(10 * time.Minute)

		w.up()
		w.feed(10 * time.Minute)
		// Killed, at most the minute in which nothing was kept yet is lost.
		w.seen("", 109, 654)
		w.seen("default", 109, 654)
		f := w.forecast(fleet.ForecastQuery{Horizon: time.Hour})
		if f.Basis.Kind != "recent" || f.Basis.UnseenShare < 0.15 || len(f.Steps) == 0 {
			t.Errorf("basis %+v, %d steps", f.Basis, len(f.Steps))
		}
		if q := f.Steps[0].Arrivals; q.P50 < 20 || q.P50 > 40 { // six a minute, steps of five
			t.Errorf("the next five minutes: %+v, want about 30", q)
		}
		if q := f.Steps[0].Demand; q.P50 < 1 || q.P50 > 5 {
			t.Errorf("demand in the next five minutes: %+v, want about 2", q)
		}
		w.end()
	})
}

// TestAQueueThatCannotBeReadIsNoEmptyQueue: rule 1, for the history.
func TestAQueueThatCannotBeReadIsNoEmptyQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(15 * time.Second)})
		q := &deaf{Queue: w.store.Queue()}
		w.upOn(w.store, q)
		w.feed(10 * time.Minute)
		q.now.Store(true)
		w.feed(10 * time.Minute)
		q.now.Store(false)
		w.feed(10 * time.Minute)
		w.seen("", 20, 120)
		w.engine.mu.Lock()
		weekly := w.engine.pools["default"].Weekly
		w.engine.mu.Unlock()
		if !weekly.Holes {
			t.Error("the profile of the week took the outage for an empty hour")
		}
		w.end()
	})
}

func TestHistoryOfTemplatesAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{Lead: lead(time.Second), Script: busy(time.Second)})
		w.spec.Templates = append(w.spec.Templates, template("other"))
		w.up()
		sleep(2 * time.Minute)
		for range 10 {
			w.submit(3, func(x *fleet.Task) { x.Spec.Template, x.Spec.Pool = "other", "other" })
			w.submit(1, func(x *fleet.Task) { x.Spec.Pool = "default~v" })
			sleep(time.Minute)
		}
		w.seen("", 12, 40)
		w.seen("other", 12, 30)
		w.seen("default", 12, 10) // a variant counts to its template
		if f := w.forecast(fleet.ForecastQuery{Template: "other", Horizon: time.Minute}); f.Template != "other" || len(f.Steps) != 1 {
			t.Errorf("%+v", f)
		}
		if _, err := w.engine.Forecast(t.Context(), fleet.ForecastQuery{Template: "nobody"}); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("of an unknown template: %v", err)
		}
		spec := w.spec
		spec.Templates = spec.Templates[:1]
		w.engine.SetSpec(spec)
		sleep(2 * time.Second)
		w.engine.mu.Lock()
		_, there := w.engine.histories.of["other"]
		w.engine.mu.Unlock()
		if there {
			t.Error("a template that is gone is remembered in memory")
		}
		w.end()
	})
}

func TestColdStartOfAForecast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Options{})
		w.up()
		sleep(time.Second)
		if f := w.forecast(fleet.ForecastQuery{}); f.Basis.Kind != "none" || len(f.Steps) != 0 {
			t.Errorf("%+v", f.Basis)
		}
		w.end()
	})
}

func TestWhatIsKeptWarmAlready(t *testing.T) {
	rule, err := calendar.Parse("0 9 * * MON", "Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	a, b := template("a"), template("b")
	b.Min = 2
	s := Spec{Templates: []fleet.Template{a, b}, Policy: plan.Policy{Min: 1}, Floors: []Floor{{Rule: rule, For: time.Hour, Min: 9}}}
	monday := time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC) // 09:30 in Warsaw
	for _, c := range []struct {
		template string
		at       time.Time
		want     int
	}{{"a", monday, 9}, {"b", monday, 2}, {"", monday, 11}, {"a", monday.Add(time.Hour), 1}, {"", monday.Add(time.Hour), 3}} {
		if got := s.warmAt(c.template, c.at, s.Policy); got != c.want {
			t.Errorf("%q at %s: %d, want %d", c.template, c.at, got, c.want)
		}
	}
	if s.zone().String() != "Europe/Warsaw" {
		t.Errorf("zone %s", s.zone())
	}
}
