package queuetest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Sent is a message as a producer sends it.
type Sent struct {
	Body    []byte
	Headers map[string]string
}

// Outside is a queue of its own on a real server (or a fake of one), empty at
// first, for one test.
type Outside struct {
	// Open connects a consumer. The fixture closes it.
	Open func(t *testing.T) fleet.Source
	// Publish sends messages as a producer would, in order; it returns once the
	// server has them.
	Publish func(ctx context.Context, m ...Sent) error
	// Dead lists what was set aside: bodies, and the reason where the backend
	// keeps one (else empty).
	Dead func(ctx context.Context) ([]Sent, []string, error)
	// Crash ends a consumer as kill -9 of its process would: its connections
	// break and nothing is given back. nil: Close does the same.
	Crash func(fleet.Source)
	// Restart stops the server and starts it on the same address and data, with
	// down between; nil where there is no server.
	Restart func(down time.Duration)
	// Fill publishes n messages of a few bytes by the fastest means; nil: the
	// test of a long queue is left out.
	Fill func(ctx context.Context, n int) error
	// Forbidden are texts that no error may show: passwords and tokens.
	Forbidden []string
	// Headers: producers can set them. Empty bodies and such are the backend's.
	Headers bool
	// Slow widens what the suite waits for, for servers that take their time; 0: 1.
	Slow int
}

// OutsideFactory makes an empty queue and cleans up after the test.
type OutsideFactory func(t *testing.T) Outside

// RunSource runs the conformance suite of fleet.Source, in real time, since
// the servers are real. Tests of one backend do not run side by side.
func RunSource(t *testing.T, open OutsideFactory) {
	runSource(t, open, func(t *testing.T, run func(*testing.T)) { run(t) })
}

// RunFakeSource runs the suite on a fake that takes its time from the time
// package, each test in a testing/synctest bubble.
func RunFakeSource(t *testing.T, open OutsideFactory) { runSource(t, open, synctest.Test) }

func runSource(t *testing.T, open OutsideFactory, within func(*testing.T, func(*testing.T))) {
	tests := []struct {
		name string
		run  func(*outside)
	}{
		{"empty", sourceEmpty},
		{"lifecycle", sourceLifecycle},
		{"bodies and headers arrive as sent", sourceBodies},
		{"receive bounds", sourceBounds},
		{"a lease that ends is delivered again", sourceExpiry},
		{"a lease holds as long as it is extended", sourceExtend},
		{"nack", sourceNack},
		{"nack with delay", sourceNackDelay},
		{"dead letter", sourceDead},
		{"a consumer crashes", sourceCrash},
		{"many consumers", sourceConcurrent},
		{"wake", sourceWake},
		{"oldest", sourceOldest},
		{"another process settles", sourceDurable},
		{"server restarts", sourceRestart},
		{"server is down", sourceDown},
		{"ended context", sourceContext},
		{"a million messages", sourceMillion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, func(t *testing.T) {
				f := &outside{T: t, Outside: open(t), ctx: t.Context()}
				if f.Slow == 0 {
					f.Slow = 1
				}
				f.q = f.open()
				f.traits = f.q.Traits()
				tt.run(f)
			})
		})
	}
}

// hold is the lease the suite asks for: short, yet longer than a round trip on
// a busy machine.
const hold = 2 * time.Second

type outside struct {
	*testing.T
	Outside
	q      fleet.Source
	traits fleet.SignalTraits
	ctx    context.Context
}

// open connects one more consumer, closed at the end of the test.
func (f *outside) open() fleet.Source {
	f.Helper()
	q := f.Open(f.T)
	f.Cleanup(func() {
		if err := q.Close(); err != nil {
			f.Errorf("close: %v", err)
		}
	})
	return q
}

// patience is how long the suite waits for what should come at once.
func (f *outside) patience() time.Duration { return time.Duration(f.Slow) * 10 * time.Second }

func (f *outside) publish(bodies ...string) {
	f.Helper()
	sent := make([]Sent, len(bodies))
	for i, b := range bodies {
		sent[i].Body = []byte(b)
	}
	if err := f.Publish(f.ctx, sent...); err != nil {
		f.Fatalf("publish: %v", err)
	}
}

// receive asks again and again until it has n messages.
func (f *outside) receive(q fleet.Source, n int, visibility time.Duration) []fleet.Message {
	f.Helper()
	var got []fleet.Message
	for end := time.Now().Add(f.patience()); len(got) < n; {
		m, err := q.Receive(f.ctx, n-len(got), visibility)
		if err != nil && time.Now().After(end) {
			f.Fatalf("receive: %v", err)
		}
		got = append(got, m...)
		if len(got) < n && time.Now().After(end) {
			f.Fatalf("received %d messages in %s, want %d", len(got), f.patience(), n)
		}
		if len(m) == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	return got
}

func (f *outside) one(q fleet.Source) fleet.Message {
	f.Helper()
	return f.receive(q, 1, time.Minute)[0]
}

// none checks that nothing can be had for the span.
func (f *outside) none(q fleet.Source, span time.Duration) {
	f.Helper()
	for end := time.Now().Add(span); ; {
		m, err := q.Receive(f.ctx, 1, time.Minute)
		if err != nil {
			f.Fatalf("receive: %v", err)
		}
		if len(m) > 0 {
			f.Fatalf("received %q, delivery %d; want nothing", m[0].Body, m[0].Attempt)
		}
		if time.Now().After(end) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// counts waits until the reading is as wanted: servers count with delay.
func (f *outside) counts(backlog, delayed, inFlight, dead int64) fleet.SignalStats {
	f.Helper()
	want := [4]int64{backlog, delayed, inFlight, dead}
	told := func(st fleet.SignalStats) [4]int64 {
		// What the backend does not tell is taken as right; where it does not
		// tell what is delayed, that may be counted as leased.
		got := [4]int64{st.Backlog, st.Delayed, st.InFlight, st.Dead}
		if !f.traits.Delayed {
			got[2] -= min(got[2], delayed)
			got[1] = delayed
		}
		if !f.traits.InFlight {
			got[2] = inFlight
		}
		if !f.traits.Dead {
			got[3] = dead
		}
		return got
	}
	for end := time.Now().Add(f.patience()); ; {
		st, err := f.q.Stats(f.ctx)
		if err == nil && told(st) == want {
			return st
		}
		if time.Now().After(end) {
			f.Fatalf("backlog, delayed, in flight, dead: got %v (%v), want %v", told(st), err, want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (f *outside) drain() {
	for {
		select {
		case <-f.q.Wake():
			continue
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

func (f *outside) ack(q fleet.Source, m fleet.Message) {
	f.Helper()
	if err := q.Ack(f.ctx, m); err != nil {
		f.Fatalf("ack: %v", err)
	}
}
