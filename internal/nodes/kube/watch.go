package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"muster.dev/muster/internal/fleet"
)

// Watch keeps the nodes of a cluster and what runs on them, for all the fleets
// of one process. Of each pod little is kept.
type Watch struct {
	client kubernetes.Interface
	nodes  *table[*machine]
	pods   *table[*pod]
	used   *usage

	mu      sync.Mutex
	version uint64            // grows with everything that may matter
	boxes   map[string]uint64 // likewise with the sandboxes of each fleet, which matter to the others
	broken  map[string]error
	hearers map[chan struct{}]bool
}

// NewWatch returns a Watch that has read nothing yet.
func NewWatch(client kubernetes.Interface) *Watch {
	w := &Watch{client: client, boxes: map[string]uint64{}, broken: map[string]error{}, hearers: map[chan struct{}]bool{}}
	w.used = &usage{nodes: map[string]*tenants{}}
	w.nodes = newTable[*machine](func(o any) (*machine, bool) {
		n, ok := o.(*corev1.Node)
		if !ok {
			return nil, false
		}
		return machineOf(n), true
	}, func(_, _ *machine) { w.changed() })
	w.pods = newTable[*pod](func(o any) (*pod, bool) {
		p, ok := o.(*corev1.Pod)
		if !ok {
			return nil, false
		}
		return podOf(p), true
	}, func(before, after *pod) {
		switch moved, heard := w.used.move(before, after); {
		case heard:
			w.changed()
		case moved:
			w.boxed(cmp.Or(after, before).fleet)
		}
	})
	return w
}

// boxed makes what was derived from the records out of date for all fleets but
// one, whose sandboxes have changed.
func (w *Watch) boxed(fleetName string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boxes[fleetName]++
}

// changed makes what was derived from the records out of date, and tells
// whoever listens.
func (w *Watch) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version++
	for c := range w.hearers {
		poke(c)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hear returns a channel that receives after changes, several as one.
func (w *Watch) hear() (changes chan struct{}, release func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	w.hearers[c] = true
	w.mu.Unlock()
	return c, func() {
		w.mu.Lock()
		delete(w.hearers, c)
		w.mu.Unlock()
	}
}

// at is the version of what is kept, for a fleet; an error while it is not kept
// up to date.
func (w *Watch) at(fleetName string) (uint64, error) {
	read := w.nodes.full() && w.pods.full() // their locks come before ours
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, resource := range []string{"nodes", "pods"} {
		if err := w.broken[resource]; err != nil {
			return 0, err
		}
	}
	if !read {
		return 0, fmt.Errorf("the nodes of the cluster have not been read yet: %w", fleet.ErrUnavailable)
	}
	version := w.version
	for name, n := range w.boxes {
		if name != fleetName {
			version += n
		}
	}
	return version, nil
}

// note keeps whether a resource can be read.
func (w *Watch) note(verb, resource string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	w.mu.Lock()
	before := w.broken[resource]
	w.broken[resource] = fault(verb, resource, err)
	w.mu.Unlock()
	if (before == nil) != (err == nil) {
		w.changed()
	}
}

// Run reads until ctx ends. While the API server is away it is asked every two
// seconds at the most.
func (w *Watch) Run(ctx context.Context) {
	core := w.client.CoreV1()
	nodes := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return core.Nodes().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return core.Nodes().Watch(ctx, o)
		},
	}
	pods := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return core.Pods(metav1.NamespaceAll).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return core.Pods(metav1.NamespaceAll).Watch(ctx, o)
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.reflector("nodes", nodes, &corev1.Node{}, w.nodes).RunWithContext(ctx) })
	wg.Go(func() { w.reflector("pods", pods, &corev1.Pod{}, w.pods).RunWithContext(ctx) })
	wg.Wait()
}

func (w *Watch) reflector(resource string, lw *cache.ListWatch, kind any, to cache.ReflectorStore) *cache.Reflector {
	list, follow := lw.ListWithContextFunc, lw.WatchFuncWithContext
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		l, err := list(ctx, o)
		w.note("list", resource, err)
		return l, err
	}
	lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		i, err := follow(ctx, o)
		w.note("watch", resource, err)
		return i, err
	}
	r := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, w.client), kind, to, cache.ReflectorOptions{
		Name:    "muster " + resource,
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 20, Cap: 2 * time.Second},
	})
	return r
}

// entry is a record of a table.
type entry interface {
	comparable
	id() *meta
}

func (m *machine) id() *meta { return &m.meta }
func (p *pod) id() *meta     { return &p.meta }

// table is a store of records that a reflector fills. What we wrote ourselves
// is put in at once, so that it is seen before the watch tells of it.
type table[T entry] struct {
	read  func(any) (T, bool)
	moved func(before, after T) // called with the lock held

	mu     sync.RWMutex
	synced bool
	rows   map[string]T
	dead   map[string]bool // uids of what we deleted and the watch has not yet
}

func newTable[T entry](read func(any) (T, bool), moved func(before, after T)) *table[T] {
	return &table[T]{read: read, moved: moved, rows: map[string]T{}, dead: map[string]bool{}}
}

func (t *table[T]) full() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.synced
}

func (t *table[T]) get(key string) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r, ok := t.rows[key]
	return r, ok
}

// each calls f for every record until it returns false.
func (t *table[T]) each(f func(T) bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, r := range t.rows {
		if !f(r) {
			return
		}
	}
}

// put takes a record in unless a newer one is there.
func (t *table[T]) put(r T) {
	if t.dead[r.id().uid] {
		return
	}
	before := t.rows[r.id().key]
	var none T
	if before != none && before.id().uid == r.id().uid && older(r.id().version, before.id().version) {
		return
	}
	t.rows[r.id().key] = r
	t.moved(before, r)
}

// older tells whether version a comes before b; false where that is not known.
func older(a, b string) bool {
	x, err := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	return err == nil && err2 == nil && x < y
}

func (t *table[T]) drop(key string) {
	r, ok := t.rows[key]
	if !ok {
		return
	}
	delete(t.rows, key)
	var none T
	t.moved(r, none)
}

// Add and the rest implement cache.ReflectorStore.
func (t *table[T]) Add(o any) error {
	r, ok := t.read(o)
	if !ok {
		return fmt.Errorf("watch: %T is not expected here", o)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(r)
	return nil
}

// Update implements cache.ReflectorStore.
func (t *table[T]) Update(o any) error { return t.Add(o) }

// Delete implements cache.ReflectorStore.
func (t *table[T]) Delete(o any) error {
	if u, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = u.Obj
	}
	r, ok := t.read(o)
	if !ok {
		return fmt.Errorf("watch: %T is not expected here", o)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.dead, r.id().uid)
	if present, ok := t.rows[r.id().key]; ok && present.id().uid == r.id().uid {
		t.drop(r.id().key)
	}
	return nil
}

// Replace implements cache.ReflectorStore.
func (t *table[T]) Replace(list []any, _ string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen, living := make(map[string]bool, len(list)), make(map[string]bool, len(list))
	for _, o := range list {
		r, ok := t.read(o)
		if !ok {
			return fmt.Errorf("list: %T is not expected here", o)
		}
		seen[r.id().key], living[r.id().uid] = true, true
		t.put(r)
	}
	for key := range t.rows {
		if !seen[key] {
			t.drop(key)
		}
	}
	for uid := range t.dead {
		if !living[uid] {
			delete(t.dead, uid)
		}
	}
	if !t.synced {
		t.synced = true
		var none T
		t.moved(none, none)
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (t *table[T]) Resync() error { return nil }

// wrote takes in what the API server has just answered.
func (t *table[T]) wrote(r T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(r)
}

// deleted takes out what we have just deleted.
func (t *table[T]) deleted(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.rows[key]; ok {
		t.dead[r.id().uid] = true
		t.drop(key)
	}
}
