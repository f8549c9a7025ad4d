package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/schedule"
	"muster.dev/muster/internal/store/memory"
)

// world is a service with its store; the bubble's clock begins at midnight of
// 1 January 2000 UTC.
type world struct {
	*testing.T
	store *memory.Store
	skew  time.Duration // of the wall clock
	stop  func()

	mu    sync.Mutex
	fired []string // key, at the time since the beginning
	err   error    // of the next submissions
	began time.Time
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.skew)
}

func (w *world) submit(_ context.Context, name string, task []byte, key string) (fleet.TaskID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if string(task) != `{"command":["x"]}` {
		return "", fmt.Errorf("task %s", task)
	}
	if w.err != nil {
		return "", w.err
	}
	w.fired = append(w.fired, fmt.Sprintf("%s %s", key, time.Since(w.began)))
	return fleet.TaskID("task of " + name), nil
}

func (w *world) start() *schedule.Service {
	s := schedule.New(schedule.Config{Store: w.store, Submit: w.submit, Events: w.store, Clock: w.now})
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.Error(err)
		}
	}
	return s
}

func (w *world) put(name, cron, zone string) fleet.Schedule {
	w.Helper()
	sc, err := schedule.Prepare(fleet.Schedule{Name: name, Cron: cron, Timezone: zone, Task: []byte(`{"command":["x"]}`)}, w.now())
	if err != nil {
		w.Fatal(err)
	}
	if err := w.store.PutSchedule(w.Context(), sc); err != nil {
		w.Fatal(err)
	}
	return sc
}

func (w *world) get(name string) fleet.Schedule {
	w.Helper()
	all, err := w.store.Schedules(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	for _, sc := range all {
		if sc.Name == name {
			return sc
		}
	}
	w.Fatalf("no schedule %s", name)
	return fleet.Schedule{}
}

func (w *world) want(fired ...string) {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(append([]string(nil), fired...), w.fired); diff != "" {
		w.Fatalf("fired (-want +got):\n%s", diff)
	}
}

func (w *world) events(kind string) []string {
	w.Helper()
	ev, err := w.store.Events(w.Context(), fleet.EventFilter{Kinds: []string{kind}})
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, e := range ev {
		out = append(out, e.Reason)
	}
	return out
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func run(t *testing.T, name string, f func(*world)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{T: t, store: memory.New(memory.Options{}), began: time.Now()}
			defer func() { _ = w.store.Close() }()
			f(w)
			if w.stop != nil {
				w.stop()
			}
		})
	})
}

const midnight = 946684800 // 2000-01-01 00:00:00 UTC

func key(name string, after time.Duration) string {
	return fmt.Sprintf("schedule/%s/%d", name, midnight+int64(after/time.Second))
}

func TestService(t *testing.T) {
	run(t, "fires on time", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.put("half", "30 0 * * *", "Europe/Warsaw") // 23:30 UTC
		w.start()
		time.Sleep(2*time.Hour + time.Minute)
		w.want(key("hourly", time.Hour)+" 1h0m0s", key("hourly", 2*time.Hour)+" 2h0m0s")
		sc := w.get("hourly")
		if !sc.LastAt.Equal(w.began.Add(2*time.Hour)) || sc.LastTask != "task of hourly" || sc.LastError != "" || !sc.Next.Equal(w.began.Add(3*time.Hour)) {
			w.Errorf("schedule: %+v", sc)
		}
		if got := w.events("schedule_fired"); len(got) != 2 {
			w.Errorf("events: %v", got)
		}
	})
	run(t, "sees changes", func(w *world) {
		s := w.start()
		w.put("a", "1 * * * *", "")
		time.Sleep(90 * time.Second)
		w.want(key("a", time.Minute) + " 1m0s")
		sc := w.get("a")
		sc.Paused = true
		if err := w.store.PutSchedule(w.Context(), sc); err != nil {
			w.Fatal(err)
		}
		w.put("b", "5 * * * *", "")
		s.Wake()
		time.Sleep(2 * time.Hour)
		if err := w.store.DeleteSchedule(w.Context(), "b"); err != nil {
			w.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		w.want(key("a", time.Minute)+" 1m0s", key("b", 5*time.Minute)+" 5m0s", key("b", 65*time.Minute)+" 1h5m0s")
	})
	run(t, "downtime: the newest once", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.put("daily", "0 12 * * *", "")
		time.Sleep(5*time.Hour + 10*time.Minute)
		w.start()
		time.Sleep(time.Second)
		w.want(key("hourly", 5*time.Hour) + " 5h10m0s")
		got := w.events("schedule_missed")
		if len(got) != 1 || !strings.Contains(got[0], "missed 4 earlier") {
			w.Errorf("events: %v", got)
		}
		time.Sleep(time.Hour)
		w.want(key("hourly", 5*time.Hour)+" 5h10m0s", key("hourly", 6*time.Hour)+" 6h0m0s")
	})
	run(t, "a crash between submission and record", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.store.Fail("PutSchedule", fleet.ErrFull)
		w.start()
		time.Sleep(time.Hour + 3500*time.Millisecond)
		one := key("hourly", time.Hour)
		w.want(one+" 1h0m0s", one+" 1h0m1s", one+" 1h0m3s") // one key: one task
		w.store.Fail("PutSchedule", nil)
		time.Sleep(10 * time.Minute)
		w.want(one+" 1h0m0s", one+" 1h0m1s", one+" 1h0m3s", one+" 1h0m7s")
	})
	run(t, "failures are kept and retried", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.fail(fleet.ErrFull)
		w.start()
		time.Sleep(time.Hour + 4*time.Second)
		w.want()
		if sc := w.get("hourly"); sc.LastError != "full" || !sc.LastAt.IsZero() {
			w.Errorf("schedule: %+v", sc)
		}
		w.fail(nil)
		time.Sleep(time.Minute)
		w.want(key("hourly", time.Hour) + " 1h0m7s")
		if sc := w.get("hourly"); sc.LastError != "" {
			w.Errorf("the error stuck: %+v", sc)
		}
		if got := w.events("schedule_failed"); len(got) != 1 {
			w.Errorf("one reason is told once: %v", got)
		}
	})
	run(t, "what can never be accepted waits for its next time", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.fail(&fleet.FieldError{Field: "spec.image", Wrong: "none"})
		w.start()
		time.Sleep(time.Hour + time.Minute)
		if sc := w.get("hourly"); !strings.Contains(sc.LastError, "spec.image") || !sc.Next.Equal(w.began.Add(2*time.Hour)) {
			w.Errorf("schedule: %+v", sc)
		}
		w.fail(nil)
		time.Sleep(time.Hour)
		w.want(key("hourly", 2*time.Hour) + " 2h0m0s")
	})
	run(t, "a bad rule says so", func(w *world) {
		if err := w.store.PutSchedule(w.Context(), fleet.Schedule{Name: "bad", Cron: "61 * * * *"}); err != nil {
			w.Fatal(err)
		}
		w.put("good", "1 * * * *", "")
		w.start()
		time.Sleep(2 * time.Minute)
		w.want(key("good", time.Minute) + " 1m0s")
		if sc := w.get("bad"); !strings.Contains(sc.LastError, "minute") {
			w.Errorf("schedule: %+v", sc)
		}
	})
	run(t, "a store that fails", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.store.Fail("Schedules", fleet.ErrUnavailable)
		w.start()
		time.Sleep(time.Hour + time.Second)
		w.want()
		w.store.Fail("Schedules", nil)
		time.Sleep(10 * time.Second)
		w.want(key("hourly", time.Hour) + " 1h0m5s")
	})
}

func TestClockSet(t *testing.T) {
	run(t, "forward", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.start()
		time.Sleep(30*time.Minute + time.Second)
		w.mu.Lock()
		w.skew = 3 * time.Hour
		w.mu.Unlock()
		time.Sleep(10 * time.Second)
		w.want(key("hourly", 3*time.Hour) + " 30m5s")
	})
	run(t, "back", func(w *world) {
		w.put("hourly", "0 * * * *", "")
		w.start()
		time.Sleep(70 * time.Minute)
		w.mu.Lock()
		w.skew = -30 * time.Minute
		w.mu.Unlock()
		time.Sleep(75 * time.Minute) // the clock passes one o'clock again
		w.want(key("hourly", time.Hour) + " 1h0m0s")
		time.Sleep(10 * time.Minute)
		w.want(key("hourly", time.Hour)+" 1h0m0s", key("hourly", 2*time.Hour)+" 2h30m0s")
	})
}

func TestSummerTime(t *testing.T) {
	run(t, "Warsaw", func(w *world) {
		time.Sleep(time.Date(2000, 3, 25, 12, 0, 0, 0, time.UTC).Sub(w.began))
		w.put("night", "30 2 * * *", "Europe/Warsaw")
		w.start()
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		var got []string
		for _, f := range w.fired {
			at, _, _ := strings.Cut(f, " ")
			var unix int64
			if _, err := fmt.Sscanf(at, "schedule/night/%d", &unix); err != nil {
				w.Fatal(err)
			}
			got = append(got, time.Unix(unix, 0).UTC().Format("02 15:04"))
		}
		if diff := cmp.Diff([]string{"26 01:00", "27 00:30"}, got); diff != "" {
			w.Error(diff)
		}
	})
}

func TestPrepare(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	if _, err := schedule.Prepare(fleet.Schedule{Cron: "x"}, now); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("bad rule: %v", err)
	}
	sc, err := schedule.Prepare(fleet.Schedule{Cron: "0 8 * * MON", Timezone: "Europe/Warsaw"}, now)
	if err != nil || sc.Next.Format(time.RFC3339) != "2026-11-30T07:00:00Z" {
		t.Errorf("next %s, %v", sc.Next, err)
	}
}
