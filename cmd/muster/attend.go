package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// secondChance is how long after a Ctrl-C a second one cancels the tasks.
const secondChance = 2 * time.Second

// attendOptions say how to wait for tasks.
type attendOptions struct {
	follow    bool
	cancel    bool // Ctrl-C cancels
	submitted bool // by this very command
	output    *outputFlag
}

// attend waits for tasks to end, shows their logs where asked, and ends as
// the first of them that failed did. Ctrl-C detaches.
func attend(ctx context.Context, s *shell, c *client.Client, o attendOptions, tasks []v1alpha1.TaskView) error {
	if o.submitted {
		announce(s, o, tasks)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	var final []v1alpha1.TaskView
	done := make(chan error, 1)
	go func() {
		var err error
		final, err = attendAll(ctx, s, c, o, ids(tasks))
		done <- err
	}()
	d := detacher{s: s, c: c, o: o, tasks: tasks}
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			return conclude(s, o, final)
		case sig := <-signals:
			if err := d.interrupted(ctx, sig, signals, done); err != nil {
				stop()
				select { // let the log end in order: a colour is not left behind
				case err := <-done:
					_ = err // it was told to end
				case <-time.After(time.Second):
				}
				return err
			}
		}
	}
}

// announce prints the ids before waiting: to standard output when nothing
// else goes there, else to standard error.
func announce(s *shell, o attendOptions, tasks []v1alpha1.TaskView) {
	if o.output.value == formatJSON || o.output.value == formatYAML {
		return
	}
	for _, t := range tasks {
		if o.follow {
			_, _ = fmt.Fprintln(s.errs, t.ID)
		} else {
			s.printf("%s\n", t.ID)
		}
	}
}

func attendAll(ctx context.Context, s *shell, c *client.Client, o attendOptions, tasks []fleet.TaskID) ([]v1alpha1.TaskView, error) {
	var final []v1alpha1.TaskView
	for _, id := range tasks {
		t, err := attendOne(ctx, s, c, o, id)
		if err != nil {
			return final, err
		}
		final = append(final, t)
	}
	return final, nil
}

func attendOne(ctx context.Context, s *shell, c *client.Client, o attendOptions, id fleet.TaskID) (v1alpha1.TaskView, error) {
	defer tellWaiting(ctx, s, c, id)()
	if o.follow {
		p := newLogPrinter(s, logOptions{json: o.output.value == formatJSON})
		_, err := c.Log(ctx, id, client.LogQuery{Follow: true}, p.print)
		if cerr := p.close(); err == nil {
			err = cerr
		}
		if err != nil {
			return v1alpha1.TaskView{}, err
		}
	}
	return c.Wait(ctx, id)
}

// conclude says how the tasks ended and turns it into the exit code.
func conclude(s *shell, o attendOptions, final []v1alpha1.TaskView) error {
	code := exitOK
	for _, t := range final {
		if code == exitOK {
			code = taskExit(t)
		}
	}
	if o.follow && o.output.value == formatJSON {
		for _, t := range final {
			if err := line(s, t); err != nil {
				return err
			}
		}
	} else if done, err := o.output.structured(s, v1alpha1.TaskList{Tasks: nonNil(final)}); err != nil {
		return err
	} else if !done {
		for _, t := range final {
			s.note("%s", ending(t))
		}
	}
	if code != exitOK {
		return exitStatus(code)
	}
	return nil
}

// ending says in one line how a task ended.
func ending(t v1alpha1.TaskView) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", label(t), t.State)
	if t.Reason != "" && string(t.Reason) != string(t.State) {
		fmt.Fprintf(&b, " (%s)", t.Reason)
	}
	var parts []string
	if v := seconds(t.StartedAt.Sub(t.DueAt).Seconds()); v != "" && !t.StartedAt.IsZero() {
		parts = append(parts, fmt.Sprintf("started %s in %s", t.Launch, v))
	}
	if v := seconds(t.Phases.RunSeconds); v != "" {
		parts = append(parts, "ran "+v)
	}
	if t.PatchBytes > 0 {
		parts = append(parts, fmt.Sprintf("patch %s", terminal.Bytes(t.PatchBytes)))
	}
	if n := len(t.Artifacts); n > 0 {
		parts = append(parts, fmt.Sprintf("artifacts %d", n))
	}
	figures := ""
	if len(parts) > 0 {
		figures = "; " + strings.Join(parts, ", ")
	}
	message := ""
	if t.Message != "" {
		message = ": " + strings.TrimRight(t.Message, "\n")
	}
	if strings.Contains(message, "\n") { // the output of a program goes last
		return b.String() + figures + message
	}
	return b.String() + message + figures
}

// label is a task's name and id, or the id.
func label(t v1alpha1.TaskView) string {
	if t.Name != "" {
		return t.Name + " " + string(t.ID)
	}
	return string(t.ID)
}

// detacher turns signals into leaving tasks alone or cancelling them.
type detacher struct {
	s         *shell
	c         *client.Client
	o         attendOptions
	tasks     []v1alpha1.TaskView
	cancelled bool
}

// interrupted handles a signal. It returns nil when waiting goes on.
func (d *detacher) interrupted(ctx context.Context, sig os.Signal, signals <-chan os.Signal, done chan error) error {
	if sig != os.Interrupt {
		d.sayHow()
		number, _ := sig.(syscall.Signal)
		return exitStatus(exitSignal + int(number))
	}
	if d.cancelled {
		return exitStatus(exitInterrupted) // a further Ctrl-C: do not even wait for the end
	}
	if d.o.cancel {
		return d.cancelAll(ctx)
	}
	d.sayHow()
	if _, tty := d.s.terminal(d.s.in); !tty {
		return exitStatus(exitInterrupted)
	}
	d.s.note("Ctrl-C again to cancel")
	select {
	case <-signals:
		return d.cancelAll(ctx)
	case err := <-done:
		done <- err
		return nil
	case <-time.After(secondChance):
		return exitStatus(exitInterrupted)
	}
}

func (d *detacher) sayHow() {
	what, pronoun := "the task goes on", "it"
	if len(d.tasks) > 1 {
		what, pronoun = "the tasks go on", "them"
	}
	id := string(d.tasks[0].ID)
	d.s.note("%s; come back to %s with `muster logs -f %s`, end %s with `muster cancel %s`", what, pronoun, id, pronoun, id)
}

func (d *detacher) cancelAll(ctx context.Context) error {
	d.cancelled = true
	d.s.note("cancelling")
	var errs []error
	for _, t := range d.tasks {
		if _, err := d.c.Cancel(ctx, t.ID); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
