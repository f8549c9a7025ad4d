package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

const (
	// annotationWarmPool names the SandboxWarmPool that a pod was made for.
	annotationWarmPool = "muster.dev/warm-pool"
	// labelPooled is on pods whose sandbox its pool still owns (agent-sandbox
	// api/v1beta1, SandboxWarmPoolLabel).
	labelPooled = "agents.x-k8s.io/warm-pool-sandbox"

	// linger is how long a pool stays larger than wanted: a claim makes the
	// pool's controller bring another pod at once, and mostly a creation that
	// wants it follows.
	linger = time.Second
	// settle is the same for a pool of an earlier process, whose sandboxes are
	// still to be adopted.
	settle = 20 * time.Second
	// idlePool is how long a pool without pods is kept.
	idlePool = time.Minute
)

// pool is one SandboxWarmPool. It is guarded by the lock of its warm.
type pool struct {
	name     string
	template map[string]any // the SandboxTemplate's spec; nil for a pool found
	making   chan struct{}  // has room for one: who makes the objects
	made     bool
	members  map[string]*member // by the pod's UID
	spent    map[types.UID]bool // sandboxes one of whose pods held a task: never again
	waiting  []*waiter
	written  int // replicas in the cluster
	lowerAt  time.Time
	idleAt   time.Time
}

// member is a pod of a pool.
type member struct {
	pod     *corev1.Pod
	holder  fleet.SandboxID // empty: free
	leaving bool
}

// waiter is a creation that waits for a pod.
type waiter struct {
	id  fleet.SandboxID
	got chan *corev1.Pod
}

// pooled reports whether the pool owns a pod's sandbox still.
func pooled(pod *corev1.Pod) bool { return pod.Labels[labelPooled] != "" }

func (p *pool) usable(m *member) bool {
	o := metav1.GetControllerOf(m.pod)
	return m.holder == "" && !m.leaving && pooled(m.pod) && m.pod.DeletionTimestamp == nil && o != nil && !p.spent[o.UID] &&
		m.pod.Status.Phase != corev1.PodSucceeded && m.pod.Status.Phase != corev1.PodFailed
}

// assign gives free pods to who waits, the oldest to the first: what a pool's
// controller deletes first are the newest.
func (p *pool) assign() {
	if len(p.waiting) == 0 {
		return
	}
	for _, m := range p.free() {
		if len(p.waiting) == 0 {
			return
		}
		wt := p.waiting[0]
		p.waiting = p.waiting[1:]
		m.holder = wt.id
		wt.got <- m.pod
	}
}

// free lists the pods nobody holds, oldest first.
func (p *pool) free() []*member {
	var list []*member
	for _, m := range p.members {
		if p.usable(m) {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b *member) int {
		if c := a.pod.CreationTimestamp.Compare(b.pod.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.pod.Name, b.pod.Name)
	})
	return list
}

func (p *pool) release(uid string) {
	if m := p.members[uid]; m != nil {
		m.holder = ""
		p.assign()
	}
}

// wanted is the number the pool should have, counted anew.
func (p *pool) wanted() int {
	n := len(p.waiting)
	for _, m := range p.members {
		if m.holder != "" && !m.leaving && pooled(m.pod) && m.pod.DeletionTimestamp == nil {
			n++
		}
	}
	return n
}

func (w *warm) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// saw implements follower.
func (w *warm) saw(pod *corev1.Pod, gone bool) {
	name := pod.Annotations[annotationWarmPool]
	if name == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.wake()
	p := w.pools[name]
	if p == nil {
		p = w.found(name, 0)
	}
	uid := string(pod.UID)
	m := p.members[uid]
	if gone {
		if o := metav1.GetControllerOf(pod); o != nil && m != nil && m.holder != "" && !m.leaving {
			p.spent[o.UID] = true
		}
		delete(p.members, uid)
		return
	}
	if m == nil {
		m = &member{}
		p.members[uid] = m
	}
	m.pod = pod
	if id := pod.Labels[kube.LabelSandbox]; id != "" && m.holder == "" {
		m.holder = fleet.SandboxID(id)
	}
	p.assign()
}

// found registers a pool of an earlier process; w.mu is held.
func (w *warm) found(name string, replicas int) *pool {
	p := &pool{
		name: name, making: make(chan struct{}, 1), members: map[string]*member{}, spent: map[types.UID]bool{},
		written: replicas, lowerAt: w.s.o.Clock().Add(settle),
	}
	w.pools[name] = p
	return p
}

// holding returns the pod that holds a sandbox, as far as was seen.
func (w *warm) holding(id fleet.SandboxID) *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pools {
		for _, m := range p.members {
			if m.holder == id && !m.leaving {
				return m.pod
			}
		}
	}
	return nil
}

// lost drops a pod that is not there any more.
func (w *warm) lost(p *pool, uid string) {
	w.mu.Lock()
	delete(p.members, uid)
	w.mu.Unlock()
	w.wake()
}

// left notes that a pod's sandbox was removed: the pool is to shrink.
func (w *warm) left(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pools {
		if m := p.members[uid]; m != nil {
			m.leaving = true
			if o := metav1.GetControllerOf(m.pod); o != nil {
				delete(p.spent, o.UID)
			}
			p.lowerAt = w.s.o.Clock() // at once: what left is not to be replaced
		}
	}
	w.wake()
}

// poolOf finds or makes the pool of a template.
func (w *warm) poolOf(ctx context.Context, b *box) (*pool, error) {
	name, template, err := w.templateOf(b)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	p := w.pools[name]
	if p == nil {
		p = w.found(name, 0)
	}
	p.template = template
	made := p.made
	w.mu.Unlock()
	if made {
		return p, nil
	}
	return p, w.makeOnce(ctx, p)
}

// makeOnce is make, by one at a time.
func (w *warm) makeOnce(ctx context.Context, p *pool) error {
	select {
	case p.making <- struct{}{}:
		defer func() { <-p.making }()
		return w.make(ctx, p)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// make makes the pool's objects where they are not there.
func (w *warm) make(ctx context.Context, p *pool) error {
	w.mu.Lock()
	made := p.made
	w.mu.Unlock()
	if made {
		return nil
	}
	if err := w.ensure(ctx, templatesGVR, w.object("SandboxTemplate", p.name, p.template)); err != nil {
		return err
	}
	err := w.ensure(ctx, poolsGVR, w.object("SandboxWarmPool", p.name, map[string]any{
		"replicas": int64(0), "sandboxTemplateRef": map[string]any{"name": p.name},
	}))
	if err != nil {
		return err
	}
	now, err := w.replicas(ctx, p)
	if err != nil {
		return err
	}
	w.mu.Lock()
	p.made, p.written = true, now
	w.mu.Unlock()
	return nil
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
	if !p.made {
		wanted := len(p.waiting) > 0 && p.template != nil
		w.mu.Unlock()
		if !wanted {
			return idlePool, nil
		}
		return 0, w.makeOnce(ctx, p) // somebody deleted it
	}
	now, want := w.s.o.Clock(), p.wanted()
	var surplus []*member
	switch {
	case want == p.written:
		p.lowerAt = time.Time{}
		idle := w.idle(p, now)
		w.mu.Unlock()
		if idle {
			return idlePool, w.retire(ctx, p)
		}
		return idlePool, nil
	case want < p.written:
		if p.lowerAt.IsZero() {
			p.lowerAt = now.Add(linger)
		}
		if wait := p.lowerAt.Sub(now); wait > 0 {
			w.mu.Unlock()
			return wait, nil
		}
		surplus = p.free()
		for _, m := range surplus {
			m.leaving = true // nobody gets it any more
		}
	}
	p.lowerAt, p.idleAt = time.Time{}, time.Time{}
	w.mu.Unlock()
	for i, m := range surplus {
		if err := w.end(ctx, m.pod); err != nil {
			w.mu.Lock()
			for _, m := range surplus[i:] {
				m.leaving = false
			}
			w.mu.Unlock()
			return 0, err
		}
	}
	return idlePool, w.write(ctx, p, want)
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
	if p.wanted() > 0 {
		w.mu.Unlock()
		return nil
	}
	p.made, p.idleAt = false, time.Time{}
	w.mu.Unlock()
	return errors.Join(
		w.erase(ctx, poolsGVR, p.name, metav1.DeleteOptions{}),
		w.erase(ctx, templatesGVR, p.name, metav1.DeleteOptions{}))
}

// encode is a patch.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write a patch: %w", err)
	}
	return b, nil
}

// replicas reads the pool's size.
func (w *warm) replicas(ctx context.Context, p *pool) (int, error) {
	n := 0
	err := w.s.try(ctx, "get "+poolsGVR.Resource, func(rc context.Context) error {
		o, err := w.s.o.Dynamic.Resource(poolsGVR).Namespace(w.s.o.Namespace).Get(rc, p.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !w.s.o.ours(o) {
			return fmt.Errorf("SandboxWarmPool %s is there and not of this fleet: %w", p.name, fleet.ErrConflict)
		}
		n = replicasOf(o)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return n, err
}
