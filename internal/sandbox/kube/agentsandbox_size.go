package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/fleet"
)

// sizes counts anew what a pool is to have: at least need, so that who waits
// gets a pod, and not below keep, which are all of its pods that are held.
// Between the two are those whose claim was made just now: they leave the pool
// any moment, and its controller brings another for each. w.mu is held.
func (w *warm) sizes(p *pool, now time.Time) (need, keep int) {
	need, keep = len(p.waiting), len(p.waiting)
	for _, m := range p.members {
		if m.holder == "" || m.leaving || !pooled(m.pod) || m.pod.DeletionTimestamp != nil {
			continue
		}
		keep++
		if c, ok := w.claims[m.pod.Name]; !ok || now.Sub(c.at) > adoption {
			need++
		}
	}
	return need, keep
}

// scale brings the pools to what is wanted until the adapter is closed.
func (w *warm) scale(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-w.kick:
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if !w.s.synced() {
			t.Reset(20 * time.Millisecond)
			continue
		}
		next := idlePool
		for _, p := range w.all() {
			after, err := w.bring(ctx, p)
			if err != nil && ctx.Err() == nil {
				w.s.o.Logger.Warn("sizing a warm pool", "pool", p.name, "error", err)
				after = linger
			}
			next = min(next, after)
		}
		t.Reset(next)
	}
}

func (w *warm) all() []*pool {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*pool, 0, len(w.pools))
	for _, p := range w.pools {
		list = append(list, p)
	}
	return list
}

// bring writes the pool's size where it differs; it says when to look again.
func (w *warm) bring(ctx context.Context, p *pool) (time.Duration, error) {
	w.mu.Lock()
	now := w.s.o.Clock()
	need, keep := w.sizes(p, now)
	switch {
	case !p.made:
		wanted := len(p.waiting) > 0 && p.template != nil
		w.mu.Unlock()
		if !wanted {
			return idlePool, nil
		}
		return 0, w.makeOnce(ctx, p) // somebody deleted it
	case need > p.written:
		p.lowerAt, p.idleAt = time.Time{}, time.Time{}
		w.mu.Unlock()
		return adoption, w.write(ctx, p, need)
	case keep < p.written:
		return w.lower(ctx, p) // unlocks
	}
	p.lowerAt = time.Time{}
	idle := w.idle(p, now)
	w.mu.Unlock()
	if idle {
		return idlePool, w.retire(ctx, p)
	}
	if need < keep {
		return adoption, nil
	}
	return idlePool, nil
}

// lower makes a pool smaller, but never by more than was removed from it by
// name, and not before its controller knows of that: so it never chooses. It
// learns of sandboxes and of pools by two watches, either of which may be
// behind. w.mu is held, and released.
func (w *warm) lower(ctx context.Context, p *pool) (time.Duration, error) {
	now := w.s.o.Clock()
	if p.lowerAt.IsZero() {
		p.lowerAt = now.Add(linger)
	}
	if wait := p.lowerAt.Sub(now); wait > 0 && p.ended == 0 {
		w.mu.Unlock()
		return wait, nil
	}
	overdue, deaf := now.Sub(p.lowerAt) > unseen, now.Sub(p.lowerAt) > 3*unseen
	if now.After(p.lowerAt) && !deaf {
		// What the controller says must be of after the pool grew, or it would
		// seem to know of what is only about to be removed.
		there := p.there()
		w.mu.Unlock()
		if seen, err := w.population(ctx, p); err != nil || seen < there {
			return linger / 40, err
		}
		w.mu.Lock()
	}
	var surplus []*member
	var pods []*corev1.Pod // as seen now: a member's is replaced by the next news of it
	if now.After(p.lowerAt) {
		surplus = p.free()
		for _, m := range surplus {
			m.leaving = true // nobody gets it any more
			pods = append(pods, m.pod)
		}
	}
	w.mu.Unlock()
	for i, pod := range pods {
		if err := w.end(ctx, pod); err != nil {
			w.mu.Lock()
			for _, m := range surplus[i:] {
				m.leaving = false
			}
			w.mu.Unlock()
			return 0, err
		}
	}
	w.mu.Lock()
	_, keep := w.sizes(p, now)
	n := max(keep, p.written-p.ended)
	if overdue { // pods that were to come have not: there is nothing to choose from
		n = keep
	}
	if n >= p.written {
		w.mu.Unlock()
		return linger / 4, nil // a pod that nobody waits for is to be seen first
	}
	w.mu.Unlock()
	if !deaf {
		seen, err := w.population(ctx, p)
		if err != nil {
			return 0, err
		}
		if seen > n {
			return linger / 40, nil
		}
	}
	return linger / 4, w.write(ctx, p, n)
}

// population is how many sandboxes a pool has as far as its controller has
// seen, but for those that are being deleted.
func (w *warm) population(ctx context.Context, p *pool) (int, error) {
	o, err := w.read(ctx, p)
	if err != nil || o == nil {
		return 0, err
	}
	n, _, _ := unstructured.NestedInt64(o.Object, "status", "replicas")
	return int(n), nil
}

// write sets the pool's replicas.
func (w *warm) write(ctx context.Context, p *pool, n int) error {
	patch, err := encode(map[string]any{"spec": map[string]any{"replicas": n}})
	if err != nil {
		return err
	}
	err = w.s.try(ctx, "patch "+poolsGVR.Resource, func(rc context.Context) error {
		_, err := w.s.o.Dynamic.Resource(poolsGVR).Namespace(w.s.o.Namespace).
			Patch(rc, p.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		p.ended = max(p.ended-max(p.written-n, 0), 0)
		p.written = n
	case errors.Is(err, fleet.ErrNotFound):
		p.made = false // somebody deleted it; the next creation makes it anew
		return fmt.Errorf("warm pool %s was deleted by somebody else: %w", p.name, err)
	}
	return err
}

// idle reports whether a pool has been empty for long; w.mu is held.
func (w *warm) idle(p *pool, now time.Time) bool {
	if p.written > 0 || len(p.members) > 0 || len(p.waiting) > 0 || len(p.making) > 0 {
		p.idleAt = time.Time{}
		return false
	}
	if p.idleAt.IsZero() {
		p.idleAt = now
	}
	return now.Sub(p.idleAt) >= idlePool
}

// retire deletes the objects of a pool that nobody needs: that of an old
// revision, or of a template that is gone.
func (w *warm) retire(ctx context.Context, p *pool) error {
	select {
	case p.making <- struct{}{}:
		defer func() { <-p.making }()
	default:
		return nil // somebody needs it just now
	}
	w.mu.Lock()
	if _, keep := w.sizes(p, w.s.o.Clock()); keep > 0 {
		w.mu.Unlock()
		return nil
	}
	p.made, p.idleAt = false, time.Time{}
	w.mu.Unlock()
	return errors.Join(
		w.erase(ctx, poolsGVR, p.name, metav1.DeleteOptions{}),
		w.erase(ctx, templatesGVR, p.name, metav1.DeleteOptions{}))
}
