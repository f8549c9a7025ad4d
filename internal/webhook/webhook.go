package webhook

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Notices are what a fleet tells of itself. Both methods answer at once.
type Notices interface {
	Notices() []fleet.Notice // to be delivered, the oldest first
	NoticeDone(id string)    // delivered, or given up
}

// Options adjust a Service; Tasks is needed.
type Options struct {
	Tasks   fleet.Tasks
	Notices func() Notices // nil, or nil of it: there are none
	// Key returns what deliveries are signed with, and is asked for each; nil:
	// they are unsigned. Without a key nothing is sent; it is tried again.
	Key func(context.Context) ([]byte, error)
	// Tried hears of each attempt that ended: whether it was delivered and, if
	// not, whether it is tried again. It must not block; may be nil.
	Tried     func(delivered, again bool)
	UserAgent string
	Transport http.RoundTripper // default: one that refuses metadata addresses
	Logger    *slog.Logger
	Clock     func() time.Time
	Poll      time.Duration // how often the store is asked; default 2 s
	Timeout   time.Duration // of one attempt; default 10 s
	Attempts  int           // before giving up; default 10
	Parallel  int           // deliveries at once; default 8
}

// Service delivers webhooks.
type Service struct {
	o      Options
	client *http.Client
	wake   chan struct{}
	slots  chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	pending map[string]*delivery // by the name of the job
	more    bool                 // the store had more than the last round asked for
}

// delivery is what is under way for one job.
type delivery struct {
	tries int       // so far
	due   time.Time // of the next one
	busy  bool
	// done is kept until the store is asked anew: a list read before may still
	// have the task.
	done bool
}

const (
	// fresh is how many tasks beyond those that wait for another attempt a
	// round asks the store for, so that a receiver that is down does not keep
	// the hooks of others waiting.
	fresh = 64
	// mostWaiting bounds those that wait, and so the memory of a round.
	mostWaiting = 4096
)

// New returns a Service; Run starts it.
func New(o Options) *Service {
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	orDefault(&o.Poll, 2*time.Second)
	orDefault(&o.Timeout, 10*time.Second)
	orDefault(&o.Attempts, 10)
	orDefault(&o.Parallel, 8)
	return &Service{
		o: o, wake: make(chan struct{}, 1), slots: make(chan struct{}, o.Parallel), pending: map[string]*delivery{},
		client: &http.Client{Transport: o.Transport, Timeout: o.Timeout, CheckRedirect: sameHost},
	}
}

func orDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Wake makes Run look at the store at once.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends; what was not delivered stays in the store.
func (s *Service) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	defer s.wg.Wait()
	for {
		next := s.round(ctx)
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
	}
}

// round starts what is due and says when to look again.
func (s *Service) round(ctx context.Context) time.Duration {
	s.mu.Lock()
	maps.DeleteFunc(s.pending, func(_ string, d *delivery) bool { return d.done })
	limit := min(len(s.pending), mostWaiting) + fresh
	s.mu.Unlock()
	tasks, err := s.o.Tasks.PendingWebhooks(ctx, limit)
	if err != nil {
		if ctx.Err() == nil {
			s.o.Logger.Warn("cannot read pending webhooks", "error", err)
		}
		return s.o.Poll
	}
	jobs := s.notices()
	for _, t := range tasks {
		jobs = append(jobs, s.settled(t))
	}
	s.forget(jobs, len(tasks) == limit)
	now, next := s.o.Clock(), s.o.Poll
	for _, j := range jobs {
		if !s.begin(j.name, now, &next) {
			continue
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return next
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			s.attempt(ctx, j)
		})
	}
	return next
}

// forget drops what the store no longer has (pruned tasks), unless it has more
// than it was asked for.
func (s *Service) forget(jobs []job, more bool) {
	there := make(map[string]bool, len(jobs))
	for _, j := range jobs {
		there[j.name] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more = more; !more {
		maps.DeleteFunc(s.pending, func(name string, d *delivery) bool { return !d.busy && !there[name] })
	}
}

// begin marks a job as busy if it is due; else next is brought forward to
// when it will be.
func (s *Service) begin(name string, now time.Time, next *time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.pending[name]
	switch {
	case d == nil:
		d = &delivery{}
		s.pending[name] = d
	case d.busy, d.done:
		return false
	case d.due.After(now):
		*next = min(*next, d.due.Sub(now))
		return false
	}
	d.busy = true
	d.tries++
	return true
}

// attempt tries once and settles what comes of it.
func (s *Service) attempt(ctx context.Context, j job) {
	s.mu.Lock()
	d := s.pending[j.name]
	s.mu.Unlock()
	wait, err := s.try(ctx, &j)
	if ctx.Err() != nil {
		return // not known to be delivered: again after the restart
	}
	again := err != nil && wait >= 0 && d.tries < s.o.Attempts
	if s.o.Tried != nil {
		s.o.Tried(err == nil, again)
	}
	if err != nil {
		s.o.Logger.Warn("webhook was not delivered", j.kind, j.id, "attempt", d.tries, "of", s.o.Attempts, "error", err)
		if again {
			s.mu.Lock()
			d.due, d.busy = s.o.Clock().Add(max(wait, backoff(d.tries))), false
			s.mu.Unlock()
			return
		}
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	err = j.done(ctx, problem)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, fleet.ErrNotFound):
		d.busy, d.done = false, true
		if s.more {
			s.Wake()
		}
	case ctx.Err() == nil:
		s.o.Logger.Warn("cannot record a webhook as done; it will be sent again", j.kind, j.id, "error", err)
		d.due, d.busy = s.o.Clock().Add(backoff(d.tries)), false
	}
}

func (s *Service) try(ctx context.Context, j *job) (time.Duration, error) {
	body, err := j.body()
	if err != nil {
		return -1, err
	}
	return s.post(ctx, j.url, body)
}

// backoff is 1 s doubling to at most 5 min, less up to a quarter of it.
func backoff(tries int) time.Duration {
	d := min(time.Second<<min(tries-1, 10), 5*time.Minute)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}
