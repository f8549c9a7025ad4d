//go:build linux

package runner

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxBridged bounds connections through the bridge at once; more wait in the
// kernel's backlog.
const maxBridged = 256

// startBridge listens on the sandbox's loopback and leads every connection to
// the proxy outside.
func (r *Runner) startBridge() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the proxy bridge: %w", err)
	}
	r.proxyPort = l.Addr().(*net.TCPAddr).Port
	b := &bridge{ctx: r.ctx, dial: r.c.Proxy, slots: make(chan struct{}, maxBridged)}
	r.wg.Go(func() {
		<-r.ctx.Done()
		_ = l.Close()
		b.closeAll()
	})
	r.wg.Go(func() {
		b.serve(l)
		b.wg.Wait()
	})
	return nil
}

type bridge struct {
	ctx   context.Context // of the runner
	dial  func(context.Context) (net.Conn, error)
	slots chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

func (b *bridge) serve(l net.Listener) {
	for {
		b.slots <- struct{}{}
		c, err := l.Accept()
		if err != nil {
			<-b.slots
			if b.isClosed() {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, perhaps
			continue
		}
		b.wg.Go(func() {
			defer func() { <-b.slots }()
			b.carry(c)
		})
	}
}

func (b *bridge) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// track registers c for closeAll; false when it is too late.
func (b *bridge) track(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	if b.open == nil {
		b.open = map[net.Conn]struct{}{}
	}
	b.open[c] = struct{}{}
	return true
}

func (b *bridge) drop(c net.Conn) {
	_ = c.Close()
	b.mu.Lock()
	delete(b.open, c)
	b.mu.Unlock()
}

func (b *bridge) closeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for c := range b.open {
		_ = c.Close()
	}
}

// carry copies both ways until both ends are done, passing each end's
// half-close on.
func (b *bridge) carry(c net.Conn) {
	defer b.drop(c)
	if !b.track(c) {
		return
	}
	out, err := b.dial(b.ctx)
	if err != nil {
		return
	}
	defer b.drop(out)
	if !b.track(out) {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		relay(c, out)
	}()
	relay(out, c)
	<-back
}

type closeWriter interface{ CloseWrite() error }

func relay(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if w, ok := dst.(closeWriter); ok && err == nil {
		_ = w.CloseWrite()
		return
	}
	_ = dst.Close()
	_ = src.Close()
}
