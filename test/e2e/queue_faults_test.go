package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/test/queues"
)

// faulty are the backends that are hurt: one that keeps a lease over a restart
// of the control plane, and one that does not. Slow tests hurt all.
func faulty() []string {
	if os.Getenv("MUSTER_SLOW_TESTS") != "" {
		return nil
	}
	return []string{"redis-stream", "rabbitmq"}
}

// visibility is the shortest that a fleet may ask for.
const visibility = "visibility: 5s"

// once checks that a message became one task, which ran once and was settled
// once, and that the queue has nothing left of it.
func (w *worker) once(names ...string) {
	w.t.Helper()
	var ids []string
	for _, n := range names {
		ids = append(ids, string(w.named(n, fleet.TaskState.Final).ID))
	}
	w.checkExactlyOnce(ids)
	w.empty()
	all := w.tasks()
	for _, v := range all {
		if v.Attempt != 1 {
			w.t.Errorf("task %s took %d attempts", v.Name, v.Attempt)
		}
	}
	if len(all) != len(names) {
		w.t.Errorf("%d tasks of %d messages", len(all), len(names))
	}
	if d := w.dead(); len(d) != 0 {
		w.t.Errorf("set aside: %v", d)
	}
}

// beginEnd is a script that checkExactlyOnce knows.
func beginEnd(seconds string) string { return "echo begin; sleep " + seconds + "; echo end" }

// TestQueueCrash kills the control plane in the middle of a task: it goes on,
// is not run again, and is acknowledged by the next control plane. The second
// time nobody holds the message for longer than its lease.
func TestQueueCrash(t *testing.T) {
	each(t, func(t *testing.T, b queues.Backend) {
		w := newWorker(t, b, "{min: 1, max: 3}", visibility)
		w.send(message("at once", beginEnd("5")), message("late", beginEnd("14")))
		w.named("at once", running)
		w.named("late", running)
		w.kill()
		w.start()
		w.succeeded("at once", "begin\nend\n")
		w.kill()
		time.Sleep(8 * time.Second) // longer than the lease: the server has to give it up
		w.start()
		w.once("at once", "late")
	}, faulty()...)
}

// TestQueueOutage stops the server while tasks run and one waits: it is said,
// nothing is scaled in or lost, and all is done once the server is back.
func TestQueueOutage(t *testing.T) {
	each(t, func(t *testing.T, b queues.Backend) {
		w := newWorker(t, b, "{min: 2, max: 2}", visibility)
		w.send(message("short", beginEnd("6")), message("long", beginEnd("20")))
		w.named("short", running)
		w.named("long", running)
		w.send(message("waits", beginEnd("0")))
		eventually(t, 20*time.Second, "the message that waits is counted", func() bool { return w.view().Backlog == 1 })
		before := len(w.events("sandbox_drain"))
		w.q.Stop()
		stopped := time.Now()
		eventually(t, 15*time.Second, "muster fleet tells of the outage", func() bool {
			return strings.Contains(w.must("fleet"), "could not be read since")
		})
		for time.Since(stopped) < 15*time.Second {
			v := w.view()
			if v.SignalsError == "" {
				t.Error("during the outage the signals are said to be good")
			}
			if v.Pools[0].Desired < 2 {
				t.Errorf("during the outage %d sandboxes are wanted: %s", v.Pools[0].Desired, v.Pools[0].Reason)
			}
			time.Sleep(time.Second) // an outage of a given length is the point
		}
		if n := len(w.events("sandbox_drain")); n != before {
			t.Errorf("%d sandboxes were drained during the outage", n-before)
		}
		w.q.Start()
		w.once("short", "long", "waits")
		eventually(t, 15*time.Second, "the error is gone", func() bool { return w.view().SignalsError == "" })
	}, faulty()...)
}

// TestQueueLongTask runs a task five times as long as its lease.
func TestQueueLongTask(t *testing.T) {
	each(t, func(t *testing.T, b queues.Backend) {
		w := newWorker(t, b, "{min: 1, max: 2}", visibility)
		w.send(message("long", beginEnd("25")))
		id := w.named("long", running).ID
		eventually(t, 15*time.Second, "the message is counted", func() bool { return w.counts(1) })
		for !w.named("long", anyState).State.Final() {
			if !w.counts(1) && !w.named("long", anyState).State.Final() {
				n, err := w.q.Count(t.Context())
				t.Errorf("while the task runs: %+v, %v", n, err)
			}
			time.Sleep(500 * time.Millisecond) // the lease is watched for as long as the task runs
		}
		w.once("long")
		if e := w.events("message_"); len(e) != 0 {
			t.Errorf("something befell the message of task %s: %+v", id, e)
		}
	}, faulty()...)
}

// counts tells whether the server counts so many messages, delivered no more
// than once.
func (w *worker) counts(want int64) bool {
	n, err := w.q.Count(w.t.Context())
	return err == nil && n.Waiting+n.Held == want && n.Deliveries <= 1
}

func anyState(fleet.TaskState) bool { return true }

func (m *machine) view() (v v1alpha1.FleetView) {
	m.t.Helper()
	if _, err := m.api("GET", "/v1/fleet", nil, &v); err != nil {
		m.t.Fatal(err)
	}
	return v
}
