package nats

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/fleet"
)

// callTimeout bounds every call, below the 5 s of the contract.
const callTimeout = 4 * time.Second

// Source implements fleet.Source.
type Source struct {
	cfg   Config
	grave bool   // what was set aside is counted
	owner string // of receipts
	start time.Time
	ctx   context.Context // ends with Close
	end   context.CancelFunc
	wg    sync.WaitGroup
	wake  chan struct{}

	progress atomic.Pointer[progress]

	mu      sync.Mutex // the connection
	ses     *session
	down    error
	changed chan struct{}

	leases leases
	probe  probe
	head   head
}

var _ fleet.Source = (*Source)(nil)

// New checks the configuration and begins to connect; it does not wait for the
// server. ctx is for values only: the Source lives until Close. Errors wrap
// fleet.ErrInvalid; a *fleet.FieldError names the field.
func New(ctx context.Context, c Config) (*Source, error) {
	grave := !c.ReadOnly || c.DeadStream != ""
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	if _, err := c.TLS.Config(); err != nil {
		return nil, err
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	s := &Source{
		cfg: c, grave: grave, owner: hex.EncodeToString(id[:]), start: time.Now(),
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.leases.init()
	s.probe.init()
	if c.ReadOnly {
		s.wake = nil
		s.wg.Add(1)
		go s.run()
		return s, nil
	}
	s.wg.Add(3)
	go s.run()
	go s.keep()
	go s.watch()
	return s, nil
}

// Traits implements fleet.Signal; doc.go says why.
func (s *Source) Traits() fleet.SignalTraits {
	return fleet.SignalTraits{
		Oldest: true, Arrived: true, InFlight: true, Delayed: false, Dead: s.grave,
		Push: !s.cfg.ReadOnly, Names: true, Durable: true, Binary: true,
	}
}

// Wake implements fleet.Signal.
func (s *Source) Wake() <-chan struct{} { return s.wake }

func (s *Source) arouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close implements fleet.Signal. Leases are left to run out (AckWait), so that
// the process that comes next may go on holding them. Not safe to repeat at
// the same time; a second call does nothing.
func (s *Source) Close() error {
	s.giveBackProbe()
	s.end()
	s.wg.Wait()
	return nil
}
