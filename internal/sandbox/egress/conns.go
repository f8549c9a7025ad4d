package egress

import (
	"net"
	"sync"
	"time"
)

// metered is a connection to the outside: counted, ended when nothing comes
// for too long, and known to the proxy so that Close ends it.
type metered struct {
	net.Conn
	p *Proxy
}

func (m *metered) Read(b []byte) (int, error) {
	_ = m.SetReadDeadline(time.Now().Add(m.p.opts.Idle))
	n, err := m.Conn.Read(b)
	m.p.received.Add(int64(n))
	return n, err
}

func (m *metered) Write(b []byte) (int, error) {
	_ = m.SetWriteDeadline(time.Now().Add(m.p.opts.Idle))
	n, err := m.Conn.Write(b)
	m.p.sent.Add(int64(n))
	return n, err
}

func (m *metered) Close() error {
	m.p.untrack(m)
	return m.Conn.Close()
}

// CloseWrite half-closes where the connection can.
func (m *metered) CloseWrite() error { return closeWrite(m.Conn) }

// track registers a connection; false once the proxy is closed.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) untrack(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// limited bounds the connections a sandbox may hold: beyond the bound it
// waits in the listen queue.
type limited struct {
	net.Listener
	p *Proxy
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.p.slots <- struct{}{}:
	case <-l.p.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.p.slots
		return nil, err
	}
	s := &slotted{Conn: c, p: l.p, free: sync.OnceFunc(func() { <-l.p.slots })}
	if !l.p.track(s) {
		_ = s.Close()
		return nil, net.ErrClosed
	}
	return s, nil
}

// slotted is a connection from the sandbox.
type slotted struct {
	net.Conn
	p    *Proxy
	free func()
}

func (s *slotted) Close() error {
	s.p.untrack(s)
	err := s.Conn.Close()
	s.free()
	return err
}

// CloseWrite half-closes where the connection can.
func (s *slotted) CloseWrite() error { return closeWrite(s.Conn) }

func closeWrite(c net.Conn) error {
	if hc, ok := c.(interface{ CloseWrite() error }); ok {
		return hc.CloseWrite()
	}
	return c.Close()
}
