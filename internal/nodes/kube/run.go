package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

const (
	// passGap is the shortest time between two looks at what changed.
	passGap = 50 * time.Millisecond
	// passWaiting and passQuiet are the longest, while nodes are waited for and
	// otherwise.
	passWaiting = 5 * time.Second
	passQuiet   = 30 * time.Second
	// retryAfter is how long it takes after a failure.
	retryAfter = time.Second
	// settle is how long a node that is ready is left to the scheduler to say for
	// which seat it came.
	settle = time.Second
	// retryHold is after how long a hold that its node did not take is made anew.
	retryHold = 30 * time.Second
)

// Run takes nodes into service as they come, gives up those that do not, and
// takes over what an earlier process asked for, until ctx ends. Errors are
// logged and tried again; meanwhile List returns them where it cannot answer.
func (n *Nodes) Run(ctx context.Context) {
	changes, release := n.watch.hear()
	defer release()
	var wg sync.WaitGroup
	defer wg.Wait()
	if n.own {
		wg.Go(func() { n.watch.Run(ctx) })
	}
	said := ""
	for {
		wait := passQuiet
		if _, err := n.watch.at(n.o.key()); err != nil {
			n.tell()
		} else if err := n.pass(ctx); err != nil {
			wait = retryAfter
			if text := err.Error(); text != said && ctx.Err() == nil {
				n.o.Logger.Warn("cannot see to the nodes of the cluster; it is tried again", "fleet", n.o.Fleet, "error", err)
				said = text
			}
		} else {
			said, wait = "", n.pause()
		}
		if !rest(ctx, passGap, nil) || !rest(ctx, wait, changes) {
			return
		}
	}
}

// rest waits for a time or a wake; false when ctx has ended.
func rest(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return true
}

// pause is the longest time until the next pass.
func (n *Nodes) pause() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case len(n.sighted) > 0:
		return settle
	case len(n.boots) > 0:
		return passWaiting
	}
	return passQuiet
}

// pass brings everything up to date once.
func (n *Nodes) pass(ctx context.Context) error {
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	defer n.tell()
	if err := n.load(ctx); err != nil {
		n.mu.Lock()
		n.unread = fmt.Errorf("take over what was asked for earlier: %w", err)
		n.mu.Unlock()
		return err
	}
	err := errors.Join(n.takeIn(ctx), n.seatAgain(ctx), n.giveUp(ctx), n.tidy(ctx))
	n.mu.Lock()
	if n.unread != nil && err == nil {
		n.unread, n.seen = nil, nil
	} else if n.unread != nil {
		n.unread = fmt.Errorf("take over the nodes there are: %w", err)
	}
	n.mu.Unlock()
	return err
}

// now surveys whether or not others may look yet.
func (n *Nodes) now() *survey {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.survey()
}

// load takes over what was asked for earlier, once.
func (n *Nodes) load(ctx context.Context) error {
	if n.source != nil {
		return nil
	}
	s, err := n.o.source(ctx, n)
	if err != nil {
		return err
	}
	there := 0
	n.watch.nodes.each(func(m *machine) bool {
		if n.mine(m) && !m.released() && m.leaving == "" && m.ready {
			there++
		}
		return true
	})
	boots, err := s.load(ctx, there)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.source, n.boots, n.seen = s, boots, nil
	n.mu.Unlock()
	return nil
}

// takeIn puts nodes that are ready into service: what asked for them is taken
// back, and they are held.
func (n *Nodes) takeIn(ctx context.Context) error {
	s := n.now()
	fresh := n.settled(s)
	if len(fresh) == 0 {
		return nil
	}
	came := map[string]int{} // node to index of its boot
	boots := slices.Clone(n.boots)
	var done []boot
	for _, m := range fresh {
		for i := range boots {
			if b := &boots[i]; s.byBoot[b.id] == m.key {
				b.node, came[m.key] = m.key, i
				done = append(done, *b)
			}
		}
	}
	if len(done) > 0 {
		if err := n.source.came(ctx, done, wanted(boots)); err != nil {
			return err
		}
		n.setBoots(boots, nil)
	}
	g := errgroup.Group{}
	g.SetLimit(parallel)
	for _, m := range fresh {
		h := &hold{boot: m.key, requested: m.created, ready: n.o.Clock()}
		if i, ok := came[m.key]; ok {
			h.boot, h.requested = boots[i].id, boots[i].at
		}
		g.Go(func() error { return n.serve(ctx, m, h) })
	}
	return g.Wait()
}

// settled are the nodes that are ready and of which it is known for which boot
// they came.
func (n *Nodes) settled(s *survey) []*machine {
	now := n.o.Clock()
	before := n.sighted
	sighted := map[string]time.Time{}
	var out []*machine
	for _, m := range s.fresh {
		since, seen := before[m.key]
		if !seen {
			since = now
		}
		if n.source.places() && s.guessed[m.key] && now.Sub(since) < settle {
			sighted[m.key] = since
			continue
		}
		out = append(out, m)
	}
	n.mu.Lock()
	n.sighted = sighted
	n.mu.Unlock()
	return out
}

// serve holds a node; for whoever lists, its boot ends in the same moment.
func (n *Nodes) serve(ctx context.Context, m *machine, h *hold) error {
	if h.ready.Before(h.requested) {
		h.ready = h.requested
	}
	if err := n.hold(ctx, m, h); err != nil {
		return err
	}
	n.mu.Lock()
	n.boots = slices.DeleteFunc(slices.Clone(n.boots), func(b boot) bool { return b.id == h.boot })
	n.seen = nil
	n.mu.Unlock()
	return nil
}

// seatAgain asks anew for what got a node that is in service already: a seat
// may be put there in the moment before its hold is.
func (n *Nodes) seatAgain(ctx context.Context) error {
	astray := n.now().astray
	if len(astray) == 0 {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(n.boots), func(b boot) bool {
		return slices.ContainsFunc(astray, func(a boot) bool { return a.id == b.id })
	})
	if err := n.withdraw(ctx, astray, left, nil); err != nil {
		return err
	}
	boots, err := n.source.ask(ctx, len(astray), slices.Clone(n.boots))
	n.setBoots(boots, nil)
	return err
}

// giveUp ends the boots for which nothing will come.
func (n *Nodes) giveUp(ctx context.Context) error {
	s := n.now()
	waiting := slices.DeleteFunc(slices.Clone(n.boots), func(b boot) bool { return b.node != "" })
	why, err := n.source.refused(ctx, waiting)
	if why == nil {
		why = map[string]string{}
	}
	now := n.o.Clock()
	for _, b := range waiting {
		if late := now.Sub(b.at); late > n.o.Patience && why[b.id] == "" {
			why[b.id] = fmt.Sprintf("%s was asked for %s ago and is not ready%s", b.id, late.Round(time.Second), n.detail(s.byBoot[b.id]))
		}
	}
	var gone, left []boot
	for _, b := range n.boots {
		if why[b.id] != "" {
			gone = append(gone, b)
		} else {
			left = append(left, b)
		}
	}
	return errors.Join(err, n.withdraw(ctx, gone, left, why))
}

// detail says of a node that came for a boot why it is not ready.
func (n *Nodes) detail(node string) string {
	if m, ok := n.watch.nodes.get(node); ok && !m.ready {
		return ": node " + node + " came for it, " + m.unready
	}
	return ": no node came for it"
}

// tidy removes holds of nodes that are gone or given back, and those that ended.
func (n *Nodes) tidy(ctx context.Context) error {
	var stray []string
	now := n.o.Clock()
	n.watch.pods.each(func(p *pod) bool {
		if p.hold == nil || !p.ours || p.role != kube.RoleSeat || p.fleet != n.o.key() || p.node == "" {
			return true
		}
		m, ok := n.watch.nodes.get(p.node)
		if !ok || m.released() || p.failed && now.Sub(p.created) > retryHold {
			stray = append(stray, n.o.holdName(p.node))
		}
		return true
	})
	var errs []error
	for _, name := range stray {
		errs = append(errs, n.o.deletePod(ctx, n.watch, name))
	}
	return errors.Join(errs...)
}

// tell wakes the listener when the nodes are not what it was last told.
func (n *Nodes) tell() {
	s, err := n.look()
	n.mu.Lock()
	defer n.mu.Unlock()
	var now []fleet.Node
	if err == nil {
		now = s.listed
	}
	if slices.EqualFunc(n.told, now, func(a, b fleet.Node) bool { return a.ID == b.ID && a.State == b.State }) {
		return
	}
	n.told = now
	poke(n.change)
}
