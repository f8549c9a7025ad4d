package main

import (
	"context"
	"regexp"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

// A user who waits is told why after askEvery, and then each new reason. A
// task that runs may be queued again, which is looked for at leisure. A reason
// that was told before is repeated only after repeatAfter: a breaker goes
// back and forth between waiting and trying.
const (
	askEvery    = 5 * time.Second
	askRunning  = 30 * time.Second
	repeatAfter = 2 * time.Minute
)

// waitTeller says why a task waits in the queue.
type waitTeller struct {
	task    func(context.Context) (v1alpha1.TaskView, error)
	explain func(context.Context) (v1alpha1.ExplanationView, error)
	tell    func(reason string)
}

// tellWaiting says on standard error why the task waits, until the returned
// function is called.
func tellWaiting(ctx context.Context, s *shell, c *client.Client, id fleet.TaskID) (stop func()) {
	w := waitTeller{
		task:    func(ctx context.Context) (v1alpha1.TaskView, error) { return c.Task(ctx, id) },
		explain: func(ctx context.Context) (v1alpha1.ExplanationView, error) { return c.Explain(ctx, id) },
		tell:    func(reason string) { s.note("%s: %s", id, reason) },
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (w *waitTeller) run(ctx context.Context) {
	told := map[string]time.Time{}
	last := ""
	for pause := askEvery; ; {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		// A server that cannot be asked is the business of who waits for the task.
		t, err := w.task(ctx)
		if err == nil && t.Final() {
			return
		}
		pause = askEvery
		if err != nil || t.State != fleet.TaskQueued {
			pause = askRunning
			continue
		}
		v, err := w.explain(ctx)
		if err != nil || v.Task == nil || v.Task.State != fleet.TaskQueued {
			continue
		}
		key := withoutNumbers(v.Summary)
		if at, seen := told[key]; key == last || seen && time.Since(at) < repeatAfter {
			continue
		}
		last, told[key] = key, time.Now()
		w.tell(v.Summary)
	}
}

// changing is what differs from one moment to the next in a reason that is
// still the same: identifiers, which hold a digit, and numbers.
var changing = regexp.MustCompile(`\b[\pL]*[0-9][\pL0-9.]*`)

func withoutNumbers(reason string) string { return changing.ReplaceAllString(reason, "#") }
