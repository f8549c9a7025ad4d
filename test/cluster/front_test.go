package cluster

import (
	"io"
	"net"
	"sync"
	"testing"
)

// front is what a Service is to pods: an address that stays while the control
// planes behind it come and go. It passes a connection to the first one that
// takes it.
type front struct {
	l    net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	back []string // addresses, the newest last
	open map[net.Conn]bool
}

func newFront(t testing.TB) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{l: l, open: map[net.Conn]bool{}}
	f.wg.Go(f.accept)
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for c := range f.open {
			c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return f
}

func (f *front) address() string { return f.l.Addr().String() }

// add lets connections go to a control plane, too.
func (f *front) add(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.back = append(f.back, addr)
}

func (f *front) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() { f.pass(c) })
	}
}

func (f *front) keep(c net.Conn) func() {
	f.mu.Lock()
	f.open[c] = true
	f.mu.Unlock()
	return func() {
		c.Close()
		f.mu.Lock()
		delete(f.open, c)
		f.mu.Unlock()
	}
}

func (f *front) pass(c net.Conn) {
	defer f.keep(c)()
	f.mu.Lock()
	back := append([]string(nil), f.back...)
	f.mu.Unlock()
	for i := len(back) - 1; i >= 0; i-- {
		b, err := net.Dial("tcp", back[i])
		if err != nil {
			continue
		}
		defer f.keep(b)()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(b, c); b.(*net.TCPConn).CloseWrite() })
		_, _ = io.Copy(c, b)
		c.Close()
		b.Close()
		wg.Wait()
		return
	}
}
