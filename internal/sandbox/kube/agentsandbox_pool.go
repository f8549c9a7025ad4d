package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	// adoption is how long a claim takes at most, as a rule, until its pod is
	// out of the pool.
	adoption = 10 * time.Second
	// unseen is how long a pod that was asked for may take to be seen.
	unseen = 10 * time.Second
	// forgotten is how long a sandbox that was lost or removed is remembered
	// at least: no controller is so far behind.
	forgotten = 10 * time.Minute
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
	// spent are sandboxes none of whose pods is ever given again, since when:
	// one of their pods was lost to who held it, or they were removed by name
	// and their controller, who had not heard of it, made another pod.
	spent   map[types.UID]time.Time
	waiting []*waiter
	written int // replicas in the cluster
	ended   int // of the pool, removed by name since written
	lowerAt time.Time
	idleAt  time.Time
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

// stays tells a pod that the pool owns and that is not on its way out.
func (p *pool) stays(m *member) bool {
	o := metav1.GetControllerOf(m.pod)
	return pooled(m.pod) && !m.leaving && m.pod.DeletionTimestamp == nil && o != nil && p.spent[o.UID].IsZero()
}

func (p *pool) usable(m *member) bool {
	return m.holder == "" && p.stays(m) &&
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

// there counts the pods of the pool that are not on their way out.
func (p *pool) there() (n int) {
	for _, m := range p.members {
		if p.stays(m) {
			n++
		}
	}
	return n
}

// spend notes that no pod of a sandbox is to be given any more. Those of long
// ago are forgotten once none of their pods is there.
func (p *pool) spend(uid types.UID, now time.Time) {
	if p.spent[uid] = now; len(p.spent) <= 64+2*len(p.members) {
		return
	}
	there := map[types.UID]bool{}
	for _, m := range p.members {
		if o := metav1.GetControllerOf(m.pod); o != nil {
			there[o.UID] = true
		}
	}
	maps.DeleteFunc(p.spent, func(u types.UID, at time.Time) bool { return !there[u] && now.Sub(at) > forgotten })
}

func (p *pool) release(uid string) {
	if m := p.members[uid]; m != nil {
		m.holder = ""
		p.assign()
	}
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
			p.spend(o.UID, w.s.o.Clock())
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
		name: name, making: make(chan struct{}, 1), members: map[string]*member{}, spent: map[types.UID]time.Time{},
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

// left notes that a pod's sandbox was removed by name: the pool is to shrink.
func (w *warm) left(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, o := w.pools[pod.Annotations[annotationWarmPool]], metav1.GetControllerOf(pod)
	if p == nil || o == nil {
		return
	}
	was := pooled(pod)
	for _, m := range p.members {
		if sameOwner(m.pod, pod) {
			m.leaving = true
			was = pooled(m.pod)
		}
	}
	if was {
		p.ended++
	}
	p.spend(o.UID, w.s.o.Clock())
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
	if p.template == nil { // the name is its content's
		p.template = template
	}
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
	made, template := p.made, p.template
	w.mu.Unlock()
	if made {
		return nil
	}
	if err := w.ensure(ctx, templatesGVR, w.object("SandboxTemplate", p.name, template)); err != nil {
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
	p.made, p.written, p.ended = true, now, 0
	w.mu.Unlock()
	return nil
}

// encode is a patch.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write a patch: %w", err)
	}
	return b, nil
}

// replicas reads the pool's size; zero when it is not there.
func (w *warm) replicas(ctx context.Context, p *pool) (int, error) {
	o, err := w.read(ctx, p)
	if err != nil || o == nil {
		return 0, err
	}
	return replicasOf(o), nil
}

// read reads the pool; nil when it is not there.
func (w *warm) read(ctx context.Context, p *pool) (o *unstructured.Unstructured, err error) {
	err = w.s.try(ctx, "get "+poolsGVR.Resource, func(rc context.Context) error {
		o, err = w.s.o.Dynamic.Resource(poolsGVR).Namespace(w.s.o.Namespace).Get(rc, p.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !w.s.o.ours(o) {
			return fmt.Errorf("SandboxWarmPool %s is there and not of this fleet: %w", p.name, fleet.ErrConflict)
		}
		return nil
	})
	if errors.Is(err, fleet.ErrNotFound) {
		return nil, nil
	}
	return o, err
}
