package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

func sourceEmpty(f *outside) {
	st := f.counts(0, 0, 0, 0)
	if age := time.Since(st.AsOf); age < -time.Second || age > f.patience() || !st.Oldest.IsZero() {
		f.Errorf("an empty queue: %+v", st)
	}
	if m, err := f.q.Receive(f.ctx, 3, hold); err != nil || m == nil || len(m) != 0 {
		f.Errorf("received %v, %v from an empty queue, want an empty slice", m, err)
	}
	if f.traits.Push != (f.q.Wake() != nil) {
		f.Errorf("pushes: %v, but wake is nil: %v", f.traits.Push, f.q.Wake() == nil)
	}
}

func sourceLifecycle(f *outside) {
	before := f.counts(0, 0, 0, 0)
	f.publish("one", "two")
	st := f.counts(2, 0, 0, 0)
	if n := st.Arrived - before.Arrived; f.traits.Arrived && n != 2 {
		f.Errorf("arrived: %d more, want 2", n)
	}
	m := f.receive(f.q, 2, time.Minute)
	bodies := []string{string(m[0].Body), string(m[1].Body)}
	slices.Sort(bodies)
	if !slices.Equal(bodies, []string{"one", "two"}) {
		f.Fatalf("received %q", bodies)
	}
	for _, x := range m {
		left := time.Until(x.Until)
		if x.Attempt != 1 || x.Receipt == "" || len(x.Receipt) > 4096 || f.traits.Names && x.ID == "" || len(x.ID) > 512 || left <= 0 || left > time.Minute {
			f.Errorf("message %+v", x)
		}
		if !x.At.IsZero() && time.Since(x.At).Abs() > f.patience() {
			f.Errorf("enqueued %s, now is %s", x.At, time.Now())
		}
	}
	if m[0].Receipt == m[1].Receipt || f.traits.Names && m[0].ID == m[1].ID {
		f.Errorf("two messages with one name: %+v", m)
	}
	f.counts(0, 0, 2, 0)
	f.none(f.q, 0)
	f.ack(f.q, m[0])
	f.counts(0, 0, 1, 0)
	f.ack(f.q, m[1])
	f.counts(0, 0, 0, 0)
	f.fenced("second ack", f.q.Ack(f.ctx, m[1]))
	f.none(f.q, hold)
}

func (f *outside) fenced(what string, err error) {
	f.Helper()
	if !errors.Is(err, fleet.ErrFenced) {
		f.Errorf("%s: %v, want ErrFenced", what, err)
	}
}

// oddities are bodies that a careless adapter changes.
func oddities(binary bool) []string {
	out := []string{" ", "{\"a\":1}\n", "żółć 你好 🙂", strings.Repeat("x", 200<<10), "\t'quoted' \"twice\" $HOME `id` %s {{.}} <&>;"}
	if binary {
		out = append(out, "\x00\xff\xfe\x80nul", string([]byte{0xc3, 0x28}))
	}
	return out
}

func sourceBodies(f *outside) {
	sent := oddities(f.traits.Binary)
	headers := map[string]string{"traceparent": "00-ab-cd-01", "team": "płatności"}
	for _, b := range sent {
		s := Sent{Body: []byte(b)}
		if f.Headers {
			s.Headers = headers
		}
		if err := f.Publish(f.ctx, s); err != nil {
			f.Fatal(err)
		}
	}
	got := map[string]int{}
	for _, m := range f.receive(f.q, len(sent), time.Minute) {
		got[string(m.Body)]++
		for k, v := range headers {
			if f.Headers && m.Headers[k] != v {
				f.Errorf("header %s is %q, want %q", k, m.Headers[k], v)
			}
		}
		f.ack(f.q, m)
	}
	for _, b := range sent {
		if got[b] != 1 {
			f.Errorf("body %.40q was received %d times", b, got[b])
		}
	}
}

func sourceBounds(f *outside) {
	f.publish("1", "2", "3", "4", "5")
	if m, err := f.q.Receive(f.ctx, 0, hold); err != nil || len(m) != 0 {
		f.Errorf("asked for none: %d, %v", len(m), err)
	}
	for _, v := range []time.Duration{0, -time.Second, 13 * time.Hour} {
		if _, err := f.q.Receive(f.ctx, 1, v); !errors.Is(err, fleet.ErrInvalid) {
			f.Errorf("visibility %s: %v, want ErrInvalid", v, err)
		}
	}
	m := f.receive(f.q, 2, time.Minute)
	if len(m) != 2 {
		f.Errorf("asked for 2, got %d", len(m))
	}
	f.counts(3, 0, 2, 0)
	for _, x := range append(m, f.receive(f.q, 3, time.Minute)...) {
		f.ack(f.q, x)
	}
}

func sourceExpiry(f *outside) {
	f.publish("one")
	first := f.receive(f.q, 1, hold)[0]
	f.none(f.q, hold/2)
	second := f.one(f.q)
	if string(second.Body) != "one" || second.ID != first.ID || second.Receipt == first.Receipt || second.Attempt != 2 {
		f.Errorf("delivered again as %+v after %+v", second, first)
	}
	_, err := f.q.Extend(f.ctx, first, hold)
	f.fenced("extend", err)
	f.fenced("nack", f.q.Nack(f.ctx, first, 0))
	f.fenced("dead-letter", f.q.DeadLetter(f.ctx, first, "late"))
	f.fenced("ack", f.q.Ack(f.ctx, first))
	f.counts(0, 0, 1, 0)
	f.ack(f.q, second)
	f.counts(0, 0, 0, 0)
	f.none(f.q, hold)
}

func sourceExtend(f *outside) {
	f.publish("long")
	m := f.receive(f.q, 1, hold)[0]
	for range 6 { // three times the lease
		time.Sleep(hold / 2)
		until, err := f.q.Extend(f.ctx, m, hold)
		if err != nil {
			f.Fatalf("extend: %v", err)
		}
		if left := time.Until(until); left <= 0 || left > hold+time.Second {
			f.Errorf("extended by %s, %s are left", hold, left)
		}
		f.none(f.q, 0)
	}
	if _, err := f.q.Extend(f.ctx, m, 0); !errors.Is(err, fleet.ErrInvalid) {
		f.Errorf("extend by nothing: %v, want ErrInvalid", err)
	}
	f.ack(f.q, m)
	f.counts(0, 0, 0, 0)
}

func sourceNack(f *outside) {
	f.publish("one")
	m := f.one(f.q)
	if err := f.q.Nack(f.ctx, m, 0); err != nil {
		f.Fatal(err)
	}
	f.fenced("second nack", f.q.Nack(f.ctx, m, 0))
	again := f.one(f.q)
	if string(again.Body) != "one" || again.Attempt < 2 || again.ID != m.ID {
		f.Errorf("delivered again as %+v", again)
	}
	f.ack(f.q, again)
	f.counts(0, 0, 0, 0)
}

func sourceNackDelay(f *outside) {
	f.publish("one")
	m := f.one(f.q)
	if err := f.q.Nack(f.ctx, m, 2*hold); err != nil {
		f.Fatal(err)
	}
	start := time.Now()
	f.counts(0, 1, 0, 0)
	f.none(f.q, hold-time.Since(start))
	again := f.one(f.q)
	if wait := time.Since(start); wait < 2*hold-time.Second {
		f.Errorf("delivered again after %s, want %s", wait, 2*hold)
	}
	f.ack(f.q, again)
	f.counts(0, 0, 0, 0)
}

func sourceDead(f *outside) {
	s := Sent{Body: []byte("bad")}
	if f.Headers {
		s.Headers = map[string]string{"team": "payments"}
	}
	if err := f.Publish(f.ctx, s); err != nil {
		f.Fatal(err)
	}
	f.publish("good")
	for _, m := range f.receive(f.q, 2, time.Minute) {
		if string(m.Body) == "good" {
			f.ack(f.q, m)
			continue
		}
		if err := f.q.DeadLetter(f.ctx, m, "line 1: not JSON\nżółć"); err != nil {
			f.Fatalf("dead-letter: %v", err)
		}
		f.fenced("ack of a dead letter", f.q.Ack(f.ctx, m))
	}
	f.counts(0, 0, 0, 1)
	f.none(f.q, hold)
	dead, why, err := f.Dead(f.ctx)
	if err != nil || len(dead) != 1 || !bytes.Equal(dead[0].Body, []byte("bad")) {
		f.Fatalf("set aside: %q, %v", dead, err)
	}
	if why[0] != "" && !strings.Contains(why[0], "line 1: not JSON") {
		f.Errorf("the reason is %q", why[0])
	}
	for k, v := range s.Headers {
		if dead[0].Headers[k] != v {
			f.Errorf("headers set aside: %v, want %v", dead[0].Headers, s.Headers)
		}
	}
}

func sourceCrash(f *outside) {
	// Enough that the victim has its share where each consumer is given a part
	// of the queue, as Kafka's partitions are.
	want := map[string]int{}
	var bodies []string
	for i := range 12 {
		bodies = append(bodies, fmt.Sprint("m", i))
		want[bodies[i]] = 1
	}
	f.publish(bodies...)
	victim := f.Open(f.T)
	held := f.receive(victim, 2, hold)
	if f.Crash != nil {
		f.Crash(victim)
	} else if err := victim.Close(); err != nil {
		f.Fatal(err)
	}
	got := map[string]int{}
	for _, m := range f.receive(f.q, len(bodies), time.Minute) {
		got[string(m.Body)]++
		f.ack(f.q, m)
	}
	if !maps.Equal(got, want) {
		f.Errorf("after the crash: %v, want each once", got)
	}
	f.none(f.q, hold)
	f.counts(0, 0, 0, 0)
	if f.Crash != nil {
		return
	}
	for _, m := range held {
		if err := victim.Ack(f.ctx, m); err == nil {
			f.Errorf("ack of %q by a closed consumer succeeded", m.Body)
		}
	}
}

func sourceConcurrent(f *outside) {
	const messages, consumers = 120, 4
	bodies := make([]string, messages)
	for i := range bodies {
		bodies[i] = fmt.Sprint("m", i)
	}
	f.publish(bodies...)
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	end := time.Now().Add(f.patience())
	for i := range consumers {
		q := f.q
		if i%2 == 1 {
			q = f.open()
		}
		wg.Go(func() {
			for time.Now().Before(end) {
				m, err := q.Receive(f.ctx, 5, time.Minute)
				if err != nil {
					f.Errorf("receive: %v", err)
					return
				}
				for _, x := range m {
					if err := q.Ack(f.ctx, x); err != nil {
						f.Errorf("ack: %v", err)
					}
				}
				mu.Lock()
				for _, x := range m {
					got[string(x.Body)]++
				}
				n := len(got)
				mu.Unlock()
				if n == messages {
					return
				}
				if len(m) == 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	for _, b := range bodies {
		if got[b] != 1 {
			f.Errorf("%s was delivered %d times", b, got[b])
		}
	}
	f.counts(0, 0, 0, 0)
}

func sourceWake(f *outside) {
	if !f.traits.Push {
		f.Skip("the backend does not push")
	}
	f.none(f.q, 0)
	f.drain()
	f.publish("one")
	select {
	case <-f.q.Wake():
	case <-time.After(f.patience()):
		f.Fatal("not woken by an arrival")
	}
	m := f.one(f.q)
	f.drain()
	if err := f.q.Nack(f.ctx, m, time.Second); err != nil {
		f.Fatal(err)
	}
	f.ack(f.q, f.one(f.q))
}

func sourceOldest(f *outside) {
	if !f.traits.Oldest {
		f.Skip("the backend does not tell")
	}
	before := time.Now()
	f.publish("first")
	after := time.Now()
	time.Sleep(hold)
	f.publish("second")
	st := f.counts(2, 0, 0, 0)
	const slack = 1500 * time.Millisecond // clocks of a second's grain
	if st.Oldest.Before(before.Add(-slack)) || st.Oldest.After(after.Add(slack)) {
		f.Errorf("oldest %s, want %s", st.Oldest, before)
	}
	for _, m := range f.receive(f.q, 2, time.Minute) {
		f.ack(f.q, m)
	}
	if st = f.counts(0, 0, 0, 0); !st.Oldest.IsZero() {
		f.Errorf("oldest %s of an empty queue", st.Oldest)
	}
}

// sourceDurable settles with nothing but what a control plane keeps on disk.
func sourceDurable(f *outside) {
	if !f.traits.Durable {
		f.Skip("receipts do not outlive the connection")
	}
	f.publish("one")
	m := f.one(f.q)
	kept := fleet.Message{ID: m.ID, Receipt: m.Receipt}
	other := f.open()
	if _, err := other.Extend(f.ctx, kept, time.Minute); err != nil {
		f.Fatalf("extend by another process: %v", err)
	}
	f.none(other, 0)
	if err := other.Ack(f.ctx, kept); err != nil {
		f.Fatalf("ack by another process: %v", err)
	}
	f.counts(0, 0, 0, 0)
	f.fenced("ack by the first", f.q.Ack(f.ctx, m))
}

func sourceRestart(f *outside) {
	if f.Restart == nil {
		f.Skip("there is no server to restart")
	}
	f.publish("one", "two", "three", "four")
	held := f.receive(f.q, 2, hold)
	f.Restart(0)
	// What was leased may be settled after the restart where the lease lives
	// on; else it comes again. Either way nothing is lost.
	got := map[string]bool{}
	for _, m := range held {
		if err := f.q.Ack(f.ctx, m); err == nil {
			got[string(m.Body)] = true
		}
	}
	for end := time.Now().Add(3 * f.patience()); len(got) < 4; {
		m, err := f.q.Receive(f.ctx, 4, time.Minute)
		for _, x := range m {
			got[string(x.Body)] = true
			f.ack(f.q, x)
		}
		if time.Now().After(end) {
			f.Fatalf("%s after the restart only %v came (%v)", 3*f.patience(), slices.Collect(maps.Keys(got)), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	f.counts(0, 0, 0, 0)
}

func sourceDown(f *outside) {
	if f.Restart == nil {
		f.Skip("there is no server to stop")
	}
	f.publish("one")
	f.counts(1, 0, 0, 0)
	back := make(chan struct{})
	go func() {
		defer close(back)
		f.Restart(4 * time.Second)
	}()
	unavailable := 0
	for done := false; !done; {
		select {
		case <-back:
			done = true
		case <-time.After(100 * time.Millisecond):
		}
		start := time.Now()
		st, err := f.q.Stats(f.ctx)
		if took := time.Since(start); took > 7*time.Second {
			f.Errorf("stats took %s of a server that is down", took)
		}
		switch {
		case errors.Is(err, fleet.ErrUnavailable):
			unavailable++
			f.hidden(err)
		case err != nil:
			f.Errorf("stats of a server that is down: %v, want ErrUnavailable", err)
		case st.Backlog != 1:
			f.Errorf("read a backlog of %d, want 1 or an error", st.Backlog)
		}
	}
	if unavailable == 0 {
		f.Error("the server was down for 4 s and no reading failed")
	}
	f.counts(1, 0, 0, 0)
	f.ack(f.q, f.one(f.q))
}

func (f *outside) hidden(err error) {
	for _, s := range f.Forbidden {
		if s != "" && strings.Contains(err.Error(), s) {
			f.Errorf("an error shows a credential: %v", err)
		}
	}
}

func sourceContext(f *outside) {
	f.publish("one")
	m := f.one(f.q)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range map[string]func() error{
		"stats":       func() error { _, err := f.q.Stats(ctx); return err },
		"receive":     func() error { _, err := f.q.Receive(ctx, 1, hold); return err },
		"extend":      func() error { _, err := f.q.Extend(ctx, m, hold); return err },
		"ack":         func() error { return f.q.Ack(ctx, m) },
		"nack":        func() error { return f.q.Nack(ctx, m, 0) },
		"dead-letter": func() error { return f.q.DeadLetter(ctx, m, "") },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			f.Errorf("%s with an ended context: %v", name, err)
		}
	}
	f.counts(0, 0, 1, 0)
	f.ack(f.q, m)
}

func sourceMillion(f *outside) {
	if f.Fill == nil {
		f.Skip("no fast way to fill this queue")
	}
	const n = 1_000_000
	ctx, cancel := context.WithTimeout(f.ctx, 3*time.Minute)
	defer cancel()
	if err := f.Fill(ctx, n); err != nil {
		f.Fatalf("fill: %v", err)
	}
	f.counts(n, 0, 0, 0)
	best := time.Hour
	for range 9 {
		start := time.Now()
		if _, err := f.q.Stats(f.ctx); err != nil {
			f.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	f.Logf("stats of %d messages: %s (best of 9)", n, best)
	// A reading that walks the queue takes seconds; the best of nine is what the machine's other load does not blur.
	if best > 50*time.Millisecond {
		f.Errorf("stats of %d messages take %s, want 50 ms or less", n, best)
	}
	m := f.receive(f.q, 1, time.Minute)[0]
	f.counts(n-1, 0, 1, 0)
	f.ack(f.q, m)
}
