package gateway

import (
	"fmt"
	"net"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// Listener is a net.Listener of connections that came another way: link.Serve
// and egress.Serve take it for a socket.
type Listener struct {
	queue chan net.Conn

	mu     sync.Mutex
	closed bool
}

// backlog is how many connections wait to be accepted; a kernel has as many
// and more for a socket.
const backlog = 64

// NewListener returns a Listener.
func NewListener() *Listener { return &Listener{queue: make(chan net.Conn, backlog)} }

// Deliver hands c to whoever accepts and does not block. fleet.ErrFull where
// nobody accepts quickly enough, fleet.ErrUnavailable once the Listener is
// closed: c is still the caller's then.
func (l *Listener) Deliver(c net.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, net.ErrClosed)
	}
	select {
	case l.queue <- c:
		return nil
	default:
		return fmt.Errorf("%w: %d connections wait to be accepted", fleet.ErrFull, backlog)
	}
}

// Accept returns the next connection, net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	if c, ok := <-l.queue; ok {
		return c, nil
	}
	return nil, &net.OpError{Op: "accept", Net: Protocol, Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends Accept and every connection that was not accepted. It may be
// repeated.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.queue)
	for c := range l.queue {
		_ = c.Close()
	}
	return nil
}

// Addr names the kind of connections.
func (l *Listener) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return Protocol }
func (addr) String() string  { return "gateway" }
