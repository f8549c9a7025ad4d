package rabbitmq

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

const (
	// patience bounds a call; the contract allows 5 s.
	patience = 4500 * time.Millisecond
	// offerFor is how long a message is held that came to tell of an arrival;
	// the contract allows 5 s.
	offerFor = 4 * time.Second
	// statisticsAge is how long a reading of the management API is used again:
	// brokers renew what it tells every 5 s.
	statisticsAge = time.Second
)

// Source is a RabbitMQ queue that tasks are taken from.
type Source struct {
	cfg    Config
	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{}
	poke   chan struct{} // to the prober: wanted changed
	again  chan struct{} // to the keeper: an earlier time is due
	dead   publisher
	http   *http.Client
	mgmt   management

	mu      sync.Mutex
	closed  bool
	sess    *session // nil while there is no connection
	down    error    // why not; nil while the first attempt goes on
	changed chan struct{}
	seq     uint64
	prefix  string            // of receipts: tells processes apart
	leases  map[string]*lease // by receipt
	due     dueHeap
	offer   *lease // came to tell of an arrival; nil: none
	wanted  bool   // the last Receive came back short: arrivals are to be told
	held    int    // leases in the hands of callers
	delayed int    // nacked, waiting for their time here
	peaks   peaks
}

var _ fleet.Source = (*Source)(nil)

// New checks the config (errors are *fleet.FieldError) and connects in the
// background. It does not wait for the broker; ctx bounds New only.
func New(ctx context.Context, cfg Config) (*Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if _, err := cfg.TLS.Config(); err != nil {
		return nil, err
	}
	s := &Source{
		cfg:  cfg,
		wake: make(chan struct{}, 1), poke: make(chan struct{}, 1), again: make(chan struct{}, 1),
		changed: make(chan struct{}), prefix: nonce(), leases: map[string]*lease{},
	}
	s.dead.slot = newSlot()
	s.mgmt.age = statisticsAge
	s.http = &http.Client{
		Transport: &http.Transport{DialTLSContext: s.dialTLS, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		// A redirect would carry the password elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(s.connect)
	s.wg.Go(s.keep)
	s.wg.Go(s.probes)
	return s, nil
}

// Traits implements fleet.Signal. What others hold, what ever arrived and the
// head's age are told by the management API only.
func (s *Source) Traits() fleet.SignalTraits {
	m := s.cfg.Management != ""
	return fleet.SignalTraits{
		Oldest: s.cfg.Timestamps, Arrived: m, InFlight: m,
		Delayed: true, Dead: s.cfg.DeadQueue != "", Push: !s.cfg.ReadOnly, Binary: true,
	}
}

// Wake implements fleet.Signal.
func (s *Source) Wake() <-chan struct{} {
	if s.cfg.ReadOnly {
		return nil
	}
	return s.wake
}

func (s *Source) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close implements fleet.Signal. What is leased goes back to the queue at once.
func (s *Source) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	sess := s.sess
	s.mu.Unlock()
	s.cancel()
	if sess != nil {
		sess.end()
	}
	s.dead.end()
	s.wg.Wait()
	s.http.CloseIdleConnections()
	return nil
}

// spawn runs f in a goroutine that Close waits for; false: closed already.
func (s *Source) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

// bound is the context of one call of the contract.
func (s *Source) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, patience, errNoAnswer)
}

// failed wraps an error with what was done, as the contract's kinds.
func (s *Source) failed(op string, err error) error {
	return fmt.Errorf("rabbitmq queue %s: %s: %w", s.cfg.Queue, op, classify(err))
}
