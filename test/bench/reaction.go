package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/test/queues"
)

// The load of the reaction: pushed tasks at once, of which warm find a sandbox.
const (
	pushed = 50
	warmed = 10
)

// reaction times, for each queue, from just before the first publish call to
// the first and the last task's own first instruction. Each round is a new
// control plane, since one that has seen a burst keeps more sandboxes warm.
func reaction(ctx context.Context, b *bench) error {
	fmt.Printf("  %d tasks at once, %d sandboxes warm, median of %d rounds (fastest - slowest), ms; load %s\n", pushed, warmed, b.rounds, load())
	fmt.Printf("  %-22s %26s %26s\n", "queue", "first", fmt.Sprint("all ", pushed))
	for _, name := range b.queues() {
		if err := b.reactionOf(ctx, name); err != nil {
			return err
		}
	}
	if err := fillBound(ctx, b); err != nil {
		return err
	}
	printKEDA()
	return nil
}

// embedded stands for the queue inside Muster, and HTTP.
const embedded = "embedded (HTTP)"

func (b *bench) queues() []string {
	if b.queue != "" {
		return strings.Split(b.queue, ",")
	}
	names := []string{embedded}
	for _, q := range queues.All() {
		names = append(names, q.Name)
	}
	return names
}

func (b *bench) reactionOf(ctx context.Context, name string) error {
	var first, last []time.Duration
	err := withFixture(ctx, func(t *fixture) error {
		var q *queues.Queue
		if name != embedded && name != "embedded" {
			backend, err := queues.Named(name)
			if err != nil {
				return err
			}
			q = backend.Open(t)
		}
		for i := range b.rounds {
			d, err := b.round(ctx, q, fmt.Sprintf("reaction-%s-%d", strings.Fields(name)[0], i))
			if err != nil {
				return err
			}
			first, last = append(first, d[0]), append(last, d[len(d)-1])
		}
		return nil
	})
	if err != nil {
		var skipped skip
		if errors.As(err, &skipped) {
			fmt.Printf("  %-22s not measured: %v\n", name, err)
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("  %-22s %26s %26s\n", name, spread(first), spread(last))
	return nil
}

// burstScript says when it began, and keeps its sandbox until all have begun.
var burstScript = []string{"/bin/sh", "-c", "date +%s.%N; sleep 6"}

// round is one push; it returns the waits, shortest first.
func (b *bench) round(ctx context.Context, q *queues.Queue, name string) ([]time.Duration, error) {
	block := "type: embedded"
	if q != nil {
		block = q.Block
	}
	f := filepath.Join(b.dir, name+".yaml")
	if err := b.writeFleet(f, block, warmed, pushed+warmed); err != nil {
		return nil, err
	}
	s, err := b.startFleet(ctx, name, f)
	if err != nil {
		return nil, err
	}
	defer s.stop(b)
	if err := s.ready(ctx, warmed); err != nil {
		return nil, err
	}
	if err := s.calm(ctx); err != nil {
		return nil, err
	}
	var t0 time.Time
	if q == nil {
		_, t0, err = s.submit(ctx, pushed, burstScript...)
	} else {
		t0, err = push(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	d, err := s.waits(ctx, t0)
	if err != nil || q == nil {
		return d, err
	}
	return d, q.WaitEmpty(ctx, time.Minute)
}

func push(ctx context.Context, q *queues.Queue) (time.Time, error) {
	body, err := json.Marshal(map[string]any{"command": burstScript})
	if err != nil {
		return time.Time{}, err
	}
	bodies := make([]string, pushed)
	for i := range bodies { // no two the same
		bodies[i] = strings.Replace(string(body), "{", fmt.Sprintf(`{"name":"n%d",`, i), 1)
	}
	t0 := time.Now()
	return t0, q.Send(ctx, bodies...)
}

// calm waits until the control plane has been idle for a moment.
func (s *server) calm(ctx context.Context) error {
	pid := fmt.Sprint(s.cmd.Process.Pid)
	was, err := cpuTicks(pid)
	if err != nil {
		return err
	}
	for range 30 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		is, err := cpuTicks(pid)
		if err != nil || is-was <= 3 {
			return err
		}
		was = is
	}
	return nil // a busy machine is measured as it is
}

// waits are those of all that was pushed, once it is done, shortest first.
func (s *server) waits(ctx context.Context, t0 time.Time) ([]time.Duration, error) {
	var list struct{ Tasks []task }
	for range 1200 {
		if err := s.call(ctx, "GET", "/v1/tasks?limit=1000", nil, &list); err != nil {
			return nil, err
		}
		done := 0
		for _, t := range list.Tasks {
			if t.State == "succeeded" {
				done++
			}
		}
		if done == pushed {
			break
		}
		time.Sleep(100 * time.Millisecond) // seldom, to leave the processors alone
	}
	if len(list.Tasks) != pushed {
		return nil, fmt.Errorf("%d tasks of %d that were pushed", len(list.Tasks), pushed)
	}
	var d []time.Duration
	for _, t := range list.Tasks {
		at, err := s.firstInstruction(ctx, t.ID)
		if err != nil {
			return nil, err
		}
		d = append(d, at.Sub(t0))
	}
	slices.Sort(d)
	return d, nil
}

// fillBound is what the runtime alone takes: as many `runc run` of the same
// profile as sandboxes are missing, and as many as tasks, as many at once as
// Muster starts.
func fillBound(ctx context.Context, b *bench) error {
	s, err := b.start(ctx, "bound", 0, 60)
	if err != nil {
		return err
	}
	defer s.stop(b)
	p, err := newProfile(b, s)
	if err != nil {
		fmt.Printf("  %-22s not measured: %v\n", "runc run", err)
		return nil
	}
	p.spec.Process.Args = burstScript
	at := max(4, 2*runtime.NumCPU()) // as sandbox/oci
	for _, n := range []int{pushed - warmed, pushed} {
		var first, last []time.Duration
		for range b.rounds {
			d, err := p.fill(ctx, n, at)
			if err != nil {
				return err
			}
			first, last = append(first, d[0]), append(last, d[len(d)-1])
		}
		fmt.Printf("  %-22s %26s %26s\n", fmt.Sprintf("%d runc run, %d at once", n, at), spread(first), spread(last))
	}
	return nil
}

// spread is median, fastest and slowest in milliseconds.
func spread(d []time.Duration) string {
	ms := func(q float64) float64 { return float64(quantile(d, q).Microseconds()) / 1000 }
	return fmt.Sprintf("%.0f (%.0f - %.0f)", ms(0.5), ms(0), ms(1))
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return "not known"
	}
	return strings.Join(f[:3], " ")
}
