package fake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// adoptTime is how long Adopt waits for another adapter to let go, as a real one
// waits for the runner.
const adoptTime = 8 * time.Second

// Release implements fleet.Releaser.
func (s *Sandboxes) Release(ctx context.Context, id fleet.SandboxID) error {
	if err := s.enter(ctx, OpRelease); err != nil {
		return err
	}
	s.w.mu.Lock()
	b := s.w.boxes[id]
	s.w.mu.Unlock()
	if b == nil {
		return nil
	}
	if holder, released := b.heldBy(); holder != s || released {
		return nil
	}
	if b.isStarting() { // its Create fails and leaves nothing
		b.end(fmt.Errorf("the sandbox was let go while it started: %w", fleet.ErrConflict))
		select {
		case <-b.settled:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("release %s: %w", id, ctx.Err())
		}
	}
	select {
	case <-b.release():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("release %s: its sink is still being called: %w", id, ctx.Err())
	}
}

// release ends the delivery of events and lets others adopt. The channel is
// closed when the last pump has returned.
func (b *box) release() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gen++ // no pump may deliver now
	close(b.more)
	b.more = make(chan struct{})
	b.released = true
	close(b.changed)
	b.changed = make(chan struct{})
	if b.lastPump == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	return b.lastPump
}

func (b *box) isStarting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == stateStarting
}

func (b *box) heldBy() (holder *Sandboxes, released bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.holder, b.released
}

// drivenBy reports whether s may drive the sandbox: as its holder, or where that
// was closed.
func (b *box) drivenBy(s *Sandboxes) bool {
	holder, released := b.heldBy()
	return !released && (holder == s || holder.isClosed())
}

// errHeld says that another adapter did not let go.
var errHeld = errors.New("another process holds it")

// adopt makes s the holder, as soon as nobody else is.
func (b *box) adopt(ctx context.Context, s *Sandboxes) error {
	t := time.NewTimer(adoptTime)
	defer t.Stop()
	for {
		b.mu.Lock()
		free, changed, holder := b.released || b.holder == s || b.holder.isClosed(), b.changed, b.holder
		if free {
			b.holder, b.released = s, false
		}
		b.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-changed:
		case <-holder.closed:
		case <-b.ended:
			return b.cause()
		case <-t.C:
			return errHeld
		case <-s.closed:
			return fmt.Errorf("sandboxes are closed: %w", fleet.ErrUnavailable)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
