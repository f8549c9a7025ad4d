package queuetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Measured is a backend that can only be read, for one test.
type Measured struct {
	// Open returns a signal that reads through the gate, with the secret that the
	// credential returns whenever it is asked. The fixture closes it.
	Open func(t *testing.T, credential func(context.Context) (string, error)) fleet.Signal
	// Gate stands between the signal and the backend.
	Gate *Gate
	// Set makes the backlog n; the signal may see it later.
	Set func(n int64)
	// Secret is what the backend wants, and what no error may show.
	Secret string
	// Empty: nothing waits; what a reading says of it is checked beside the count.
	Empty func(t *testing.T, st fleet.SignalStats)
}

// MeasuredFactory makes a backend and cleans up after the test.
type MeasuredFactory func(t *testing.T) Measured

// RunSignal runs the conformance suite of a fleet.Signal that is no Source, in
// real time.
func RunSignal(t *testing.T, open MeasuredFactory) {
	for _, tt := range []struct {
		name string
		run  func(*measured)
	}{
		{"reads", signalReads},
		{"many readers", signalConcurrent},
		{"server is down", signalDown},
		{"server was never there", signalNever},
		{"server hangs", signalHangs},
		{"denied", signalDenied},
		{"ended context", signalContext},
		{"close", signalClose},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(&measured{T: t, Measured: open(t), ctx: t.Context()})
		})
	}
}

type measured struct {
	*testing.T
	Measured
	ctx    context.Context
	mu     sync.Mutex
	secret string // empty: the right one
}

const wrongSecret = "wr0ng-s3cret-of-the-test"

func (f *measured) open() fleet.Signal {
	f.Helper()
	s := f.Open(f.T, func(context.Context) (string, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.secret != "" {
			return f.secret, nil
		}
		return f.Secret, nil
	})
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Errorf("close: %v", err)
		}
	})
	return s
}

func (f *measured) present(secret string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secret = secret
}

// counts waits for the backlog.
func (f *measured) counts(s fleet.Signal, n int64) fleet.SignalStats {
	f.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		st, err := s.Stats(f.ctx)
		if err == nil && st.Backlog == n {
			return st
		}
		if time.Now().After(end) {
			f.Fatalf("read a backlog of %d (%v), want %d", st.Backlog, err, n)
		}
		time.Sleep(30 * time.Millisecond)
	}
}

// fails reads once, which has to fail, in time, and with that kind of error.
func (f *measured) fails(s fleet.Signal, kind error) {
	f.Helper()
	start := time.Now()
	st, err := s.Stats(f.ctx)
	if took := time.Since(start); took > 6*time.Second { // five, and a busy machine
		f.Errorf("the reading took %s, want at most 5 s", took)
	}
	if !errors.Is(err, kind) {
		f.Errorf("read %+v, %v; want the error %v", st, err, kind)
		return
	}
	for _, secret := range []string{f.Secret, wrongSecret} {
		if strings.Contains(err.Error(), secret) {
			f.Errorf("the error shows a credential: %v", err)
		}
	}
}

func signalReads(f *measured) {
	s := f.open()
	if tr := s.Traits(); tr.Push != (s.Wake() != nil) {
		f.Errorf("pushes: %v, but wake is nil: %v", tr.Push, s.Wake() == nil)
	} else if tr.Names || tr.Durable || tr.Binary {
		f.Errorf("traits of messages, where none can be taken: %+v", tr)
	}
	f.Set(3)
	st := f.counts(s, 3)
	if age := time.Since(st.AsOf); age < -2*time.Second || age > time.Minute {
		f.Errorf("as of %s, %s ago", st.AsOf, age)
	}
	f.Set(1_234_567)
	f.counts(s, 1_234_567)
	f.Set(0)
	st = f.counts(s, 0)
	if !st.Oldest.IsZero() {
		f.Errorf("oldest %s, where nothing waits", st.Oldest)
	}
	if f.Empty != nil {
		f.Empty(f.T, st)
	}
}

func signalConcurrent(f *measured) {
	f.Set(7)
	s := f.open()
	f.counts(s, 7)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if st, err := s.Stats(f.ctx); err != nil || st.Backlog != 7 {
					f.Errorf("read %d, %v; want 7", st.Backlog, err)
				}
			}
		})
	}
	wg.Wait()
}

func signalDown(f *measured) {
	f.Set(2)
	s := f.open()
	f.counts(s, 2)
	f.Gate.Down()
	for range 5 {
		f.fails(s, fleet.ErrUnavailable)
	}
	f.Gate.Up()
	f.back(s, 2)
}

// back wants the reading within the longest back-off and its attempt.
func (f *measured) back(s fleet.Signal, n int64) {
	f.Helper()
	start := time.Now()
	f.counts(s, n)
	if took := time.Since(start); took > 10*time.Second {
		f.Errorf("readable again only after %s", took)
	}
}

func signalNever(f *measured) {
	f.Gate.Down()
	f.Set(2)
	start := time.Now()
	s := f.open()
	if took := time.Since(start); took > time.Second {
		f.Errorf("opening took %s, and does not wait for a server", took)
	}
	f.fails(s, fleet.ErrUnavailable)
	f.Gate.Up()
	f.back(s, 2)
}

func signalHangs(f *measured) {
	f.Set(2)
	s := f.open()
	f.counts(s, 2)
	f.Gate.Stick()
	f.fails(s, fleet.ErrUnavailable)
	f.Gate.Flow()
	f.back(s, 2)
}

func signalDenied(f *measured) {
	f.Set(2)
	f.present(wrongSecret)
	s := f.open()
	f.fails(s, fleet.ErrDenied)
	f.fails(s, fleet.ErrDenied)
	f.present("") // it was mended, as a rotated one is
	f.back(s, 2)
}

func signalContext(f *measured) {
	f.Set(2)
	s := f.open()
	f.counts(s, 2)
	ended, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, err := s.Stats(ended); !errors.Is(err, context.Canceled) {
		f.Errorf("with an ended context: %v", err)
	}
	f.Gate.Stick()
	ctx, stop := context.WithTimeout(f.ctx, 100*time.Millisecond)
	defer stop()
	start := time.Now()
	if _, err := s.Stats(ctx); !errors.Is(err, context.DeadlineExceeded) {
		f.Errorf("with a context that ends meanwhile: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		f.Errorf("the reading went on for %s after its context", took)
	}
	f.Gate.Flow()
	f.counts(s, 2)
}

func signalClose(f *measured) {
	f.Set(2)
	s := f.open()
	f.counts(s, 2)
	f.Gate.Stick()
	read := make(chan error, 1)
	go func() {
		_, err := s.Stats(f.ctx)
		read <- err
	}()
	time.Sleep(100 * time.Millisecond)
	start := time.Now()
	if err := s.Close(); err != nil {
		f.Errorf("close: %v", err)
	}
	if err := <-read; !errors.Is(err, fleet.ErrUnavailable) {
		f.Errorf("a reading while it closes: %v, want ErrUnavailable", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		f.Errorf("close with a reading under way took %s", took)
	}
	if _, err := s.Stats(f.ctx); !errors.Is(err, fleet.ErrUnavailable) {
		f.Errorf("a reading after close: %v, want ErrUnavailable", err)
	}
}
