package queuetest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Gate is a loopback address in front of a server, which can be closed as if
// the server were down, and stopped as if it hung.
type Gate struct {
	Address string // host:port, the same as long as the gate lives

	t      testing.TB
	server string
	mu     sync.Mutex
	listen net.Listener
	conns  map[net.Conn]bool
	stuck  chan struct{} // nil while bytes flow; closed by Flow
	wg     sync.WaitGroup
}

// NewGate opens a gate to the server's address, until the test ends.
func NewGate(t testing.TB, server string) *Gate {
	t.Helper()
	g := &Gate{t: t, server: server, Address: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	g.Up()
	t.Cleanup(func() {
		g.Flow()
		g.Down()
		g.wg.Wait()
	})
	return g
}

// Up takes connections again, at the same address.
func (g *Gate) Up() {
	g.t.Helper()
	l, err := net.Listen("tcp", g.Address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	g.listen, g.Address = l, l.Addr().String()
	g.mu.Unlock()
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.pass(c) })
		}
	})
}

// Down breaks all connections and refuses further ones.
func (g *Gate) Down() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listen != nil {
		g.listen.Close()
		g.listen = nil
	}
	for c := range g.conns {
		c.Close()
	}
}

// Stick lets nothing through, while connections stay and new ones are taken.
func (g *Gate) Stick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stuck == nil {
		g.stuck = make(chan struct{})
	}
}

// Flow ends what Stick began.
func (g *Gate) Flow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stuck != nil {
		close(g.stuck)
		g.stuck = nil
	}
}

func (g *Gate) pass(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", g.server)
	if err != nil {
		return
	}
	defer s.Close()
	if !g.keep(c, s) {
		return
	}
	defer g.drop(c, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.copy(s, c)
		s.Close()
	}()
	g.copy(c, s)
	c.Close()
	<-done
}

// keep notes the connections, unless the gate went down meanwhile.
func (g *Gate) keep(c ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, x := range c {
		g.conns[x] = true
	}
	return g.listen != nil
}

func (g *Gate) drop(c ...net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, x := range c {
		delete(g.conns, x)
	}
}

func (g *Gate) copy(to io.Writer, from io.Reader) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		g.mu.Lock()
		stuck := g.stuck
		g.mu.Unlock()
		if stuck != nil {
			<-stuck
		}
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
