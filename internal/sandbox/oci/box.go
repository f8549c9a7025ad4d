package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/egress"
	"muster.dev/muster/internal/sandbox/link"
)

// box is one sandbox that this process holds.
type box struct {
	id      fleet.SandboxID
	dir     string
	cancel  context.CancelFunc // of Create
	settled chan struct{}      // closed when Create or Adopt has its answer

	// Set before settled is closed, then constant.
	rec       record
	err       error
	isolation fleet.Isolation
	stages    fleet.StartStages // zero of one that was adopted
	session   *link.Session
	proxy     *egress.Proxy
	watch     *watch
	words     *os.File // what the runner says, while Create goes on
	volume    *os.File // the volume's directory, for reading how full it is
	meter     meter

	removing sync.Mutex // held by remove

	mu       sync.Mutex
	released bool
	ended    bool // the container has ended
	leaving  bool // Destroy was called
	done     bool // a report was delivered: its end is no surprise
}

func newBox(id fleet.SandboxID, dir string, cancel context.CancelFunc) *box {
	return &box{id: id, dir: dir, cancel: cancel, settled: make(chan struct{})}
}

// ready reports whether it was created and lives.
func (b *box) ready() bool {
	select {
	case <-b.settled:
	default:
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == nil && !b.ended && !b.leaving && !b.released
}

// release lets go of everything this process holds and leaves the sandbox be.
func (b *box) release() error {
	b.mu.Lock()
	was := b.released
	b.released = true
	b.mu.Unlock()
	if was {
		return nil
	}
	var errs []error
	if b.watch != nil {
		b.watch.close()
	}
	if b.session != nil {
		errs = append(errs, b.session.Close())
	}
	if b.proxy != nil {
		errs = append(errs, b.proxy.Close())
	}
	if b.volume != nil {
		errs = append(errs, b.volume.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release sandbox %s: %w", b.id, err)
	}
	return nil
}

// guard waits for the end of the container and tells those concerned.
func (s *Sandboxes) guard(b *box) {
	if !b.watch.wait() {
		return
	}
	<-b.settled
	u, err := s.read(b) // the last reading says why
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		s.o.Logger.Warn("reading the counters of an ended sandbox", "sandbox", b.id, "error", err)
	}
	reason, why := b.meter.verdict(u)
	if reason == fleet.ReasonNone {
		reason, why = fleet.ReasonNodeLost, errors.New("the sandbox ended by itself")
	}
	end := &fleet.ReasonError{Reason: reason, Err: why}
	b.mu.Lock()
	b.ended = true
	expected := b.leaving || b.done || b.released || b.err != nil
	b.mu.Unlock()
	b.session.End(end)
	if !expected {
		s.announce(fleet.SandboxExit{ID: b.id, At: time.Now(), Reason: reason, Err: end})
	}
}
