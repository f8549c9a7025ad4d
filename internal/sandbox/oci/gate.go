package oci

import (
	"context"
	"slices"
	"sync"
)

// gate bounds the sandboxes that are being started at once: to most when tasks
// wait for them, and to calm when they only fill a stock, so that the tasks
// that start from the stock meanwhile find a processor free. A start keeps one
// busy for tens of milliseconds, in the kernel for the most part, where it is
// not interrupted.
type gate struct {
	most, calm int

	mu      sync.Mutex
	hurried bool
	busy    int
	waiting []chan struct{} // in order; closed when its turn has come
}

func newGate(most, calm int) *gate { return &gate{most: most, calm: min(most, calm)} }

// enter waits for a turn; leave ends it.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	turn := make(chan struct{})
	g.mu.Lock()
	g.waiting = append(g.waiting, turn)
	g.admit()
	g.mu.Unlock()
	select {
	case <-turn:
		return sync.OnceFunc(g.leave), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.waiting, turn)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // it came at the same moment
		g.leave()
	}
	return nil, ctx.Err()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	g.admit()
}

// hurry says whether tasks wait.
func (g *gate) hurry(yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hurried = yes
	g.admit()
}

// admit gives turns; the lock is held.
func (g *gate) admit() {
	room := g.calm
	if g.hurried {
		room = g.most
	}
	for len(g.waiting) > 0 && g.busy < room {
		g.busy++
		close(g.waiting[0])
		g.waiting = slices.Delete(g.waiting, 0, 1)
	}
}
