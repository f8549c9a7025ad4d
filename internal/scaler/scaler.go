package scaler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Status is how a Scaler is doing.
type Status struct {
	At       time.Time // of the last look at the target; zero: none yet
	Want     int       // replicas that the targets come to
	Replicas int       // that the target asks for; -1: never read
	Busy     int       // workers found busy at the last scale-in
	Writes   int       // since the start
	Held     string    // why Replicas is not Want; empty where it is, or soon will be
	Err      error     // why the last look failed; ErrDenied, ErrNotFound, ErrUnavailable
}

// Scaler drives one target. Its methods may be called concurrently, Run once.
type Scaler struct {
	o Options
	c clients

	mu     sync.Mutex
	status Status

	// The following belong to Run.
	began   time.Time
	checked time.Time      // when rivals were last looked for
	rival   string         // who else drives the target
	wrote   int            // replicas last written; -1: none yet
	swept   bool           // leftovers of a former process were looked for
	marked  bool           // some pods carry marks, or may
	told    map[string]tag // events that were told lately
	backoff time.Duration  // after failures
}

// New returns a Scaler; Run starts it. An error is a FieldError or says that
// the configuration of the client is unusable; the API server is not asked.
func New(o Options) (*Scaler, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if o.Config == nil {
		return nil, fmt.Errorf("scaler: a configuration of the client is needed: %w", fleet.ErrInvalid)
	}
	c, err := dial(o.Config)
	if err != nil {
		return nil, fmt.Errorf("scaler: %w", err)
	}
	return newScaler(o, c), nil
}

func newScaler(o Options, c clients) *Scaler {
	return &Scaler{o: o, c: c, wrote: -1, status: Status{Replicas: -1}, told: map[string]tag{}}
}

// Status is how the last look went.
func (s *Scaler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// maxBackoff bounds the time between two looks that fail.
const maxBackoff = 5 * time.Second

// passTimeout bounds a look: an API server that does not answer is an outage.
const passTimeout = 15 * time.Second

// Run follows the targets until ctx ends. Failures are in Status and in the
// log; they end nothing, and nothing is written while they last.
func (s *Scaler) Run(ctx context.Context) error {
	s.began = s.o.Clock()
	tick := time.NewTicker(s.o.Every)
	defer tick.Stop()
	var last, due time.Time
	seen := -1
	for {
		now := s.o.Clock()
		t := s.o.Targets()
		want, hold := s.wanted(now, &t)
		// More is wanted at once; less has time, and asks many pods.
		news := hold == "" && want != seen && s.backoff == 0 && (want > s.Status().Replicas || now.Sub(last) >= lessGap)
		if news || !now.Before(due) {
			last, seen = now, want
			due = s.o.Clock().Add(s.step(ctx, now, order{want, t.Signals}, hold))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lessGap is the least time between two looks that only less is wanted of.
const lessGap = 250 * time.Millisecond

// order is what to carry out.
type order struct {
	want    int
	signals string // why nothing may be scaled in; empty: it may
}

// wanted is the target's size, or why it is not known.
func (s *Scaler) wanted(now time.Time, t *fleet.Targets) (want int, hold string) {
	if t.At.IsZero() {
		return 0, "nothing was decided yet"
	}
	if age := now.Sub(t.At); age > s.o.Stale {
		return 0, fmt.Sprintf("the last decision is %s old", age.Round(time.Second))
	}
	return s.o.want(t), ""
}

// step does one pass and keeps the books; it returns when to look again.
func (s *Scaler) step(ctx context.Context, now time.Time, do order, hold string) time.Duration {
	if hold != "" {
		s.mu.Lock()
		s.status.Held = hold
		s.mu.Unlock()
		return s.o.Every
	}
	pctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	out, err := s.pass(pctx, now, do)
	if ctx.Err() != nil {
		return 0
	}
	s.mu.Lock()
	before := s.status
	s.status.At, s.status.Want, s.status.Err = now, do.want, err
	s.status.Writes += out.writes
	if out.read {
		s.status.Replicas, s.status.Busy, s.status.Held = out.replicas, out.busy, out.held
	}
	s.mu.Unlock()
	s.tell(&before, out, err)
	if err != nil {
		s.backoff = min(maxBackoff, max(200*time.Millisecond, 2*s.backoff))
		return s.backoff
	}
	s.backoff = 0
	if out.again > 0 {
		return out.again
	}
	return s.o.Resync
}

// tell logs what changed.
func (s *Scaler) tell(before *Status, out outcome, err error) {
	log := s.o.Logger.With("target", s.o.Target.String(), "namespace", s.o.Namespace)
	switch {
	case err != nil && (before.Err == nil || before.Err.Error() != err.Error()):
		log.Error("the target is left as it is", "error", err)
	case err == nil && before.Err != nil:
		log.Info("the target can be reached again")
	}
	if err == nil && out.held != "" && out.held != before.Held {
		log.Info("held", "reason", out.held)
	}
	if out.writes > 0 {
		log.Info("replicas written", "from", before.Replicas, "to", out.replicas)
	}
}

// outcome is what a pass found and did.
type outcome struct {
	read     bool // replicas are known
	replicas int
	busy     int
	writes   int
	held     string
	again    time.Duration // when to look again; 0: at the next resync
}

// pass brings the target to what is ordered, or one step towards it.
func (s *Scaler) pass(ctx context.Context, now time.Time, do order) (outcome, error) {
	if err := s.look(ctx, now); err != nil {
		return outcome{}, err
	}
	sc, err := s.c.get(ctx, &s.o)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{read: true, replicas: int(sc.Spec.Replicas)}
	if s.rival != "" {
		out.held = fmt.Sprintf("%s is also driven by %s: a target has one writer", s.o.Target, s.rival)
		s.emit(ctx, sc, event{"Warning", "AnotherWriter", out.held})
		return out, nil
	}
	s.foreign(ctx, sc)
	if do.want < out.replicas {
		err = s.scaleIn(ctx, now, sc, do, &out)
		return out, err
	}
	// Whoever was to leave is let go on before anybody new is started; that this
	// fails is no reason to start nobody.
	err = s.unmark(ctx, sc, &out)
	if do.want == out.replicas {
		s.wrote = do.want
		return out, err
	}
	return out, errors.Join(s.scaleOut(ctx, sc, do.want, &out), err)
}

// conflicts bounds how often a write is tried again at once.
const conflicts = 5

// scaleOut writes more replicas. Where somebody was faster the number is read
// again: it may be enough by now.
func (s *Scaler) scaleOut(ctx context.Context, sc *scaleObject, want int, out *outcome) error {
	for try := 0; ; try++ {
		err := s.write(ctx, sc, want, out)
		if err == nil || !errors.Is(err, fleet.ErrConflict) || try == conflicts {
			return err
		}
		if sc, err = s.c.get(ctx, &s.o); err != nil {
			return err
		}
		if out.replicas = int(sc.Spec.Replicas); out.replicas >= want {
			return nil
		}
	}
}

// write writes replicas onto what was read; ErrConflict: it changed since.
func (s *Scaler) write(ctx context.Context, sc *scaleObject, n int, out *outcome) error {
	if err := s.c.set(ctx, &s.o, sc, n); err != nil {
		return err
	}
	s.wrote = n
	out.replicas, out.writes = n, out.writes+1
	return nil
}
