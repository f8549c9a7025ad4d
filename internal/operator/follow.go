package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"muster.dev/muster/internal/fleet"
)

// Followed is one Fleet object as a process sees it that does not write it.
type Followed struct {
	key  Key
	past Past
	log  *slog.Logger

	mu      sync.Mutex
	now     *Fleet // the newest good one; nil: there is none
	synced  bool
	failed  error // why it cannot be watched
	changed chan struct{}
}

// Follow watches the Fleet object of this name until ctx ends. One that is invalid
// from the first is what past says that it was.
func Follow(ctx context.Context, c dynamic.Interface, k Key, past Past, log *slog.Logger) (*Followed, error) {
	f := &Followed{key: k, past: past, log: log, changed: make(chan struct{}, 1)}
	see := func(o any) { f.see(ctx, o) }
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(c, 0, k.Namespace, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, k.Name).String()
	})
	informer := factory.ForResource(Resource).Informer()
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		f.set(func() { f.failed = fault("list", "fleets.muster.dev", k.Namespace, err) })
	})
	if err == nil {
		_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: see, UpdateFunc: func(_, o any) { see(o) }, DeleteFunc: func(any) { f.set(func() { f.now = nil }) },
		})
	}
	if err != nil {
		return nil, fmt.Errorf("watch fleet %s: %w", k, err)
	}
	factory.Start(ctx.Done())
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			f.set(func() { f.synced = true })
		}
		<-ctx.Done()
		factory.Shutdown()
	}()
	return f, nil
}

func (f *Followed) set(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// see takes a newer version; an invalid one changes nothing.
func (f *Followed) see(ctx context.Context, o any) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	now, err := objectFleet(u)
	if err != nil {
		f.log.Warn("the fleet is invalid; what ran before goes on", "fleet", f.key.String(), "error", err)
		f.mu.Lock()
		known := f.now != nil
		f.mu.Unlock()
		if known {
			return
		}
		if now = f.recall(ctx, u); now.Spec == nil {
			return
		}
	}
	f.set(func() { f.now, f.failed = &now, nil })
}

// recall waits for the store: without it nothing can be carried anyway.
func (f *Followed) recall(ctx context.Context, u *unstructured.Unstructured) Fleet {
	for {
		last, err := recall(ctx, f.past, u)
		if err == nil || ctx.Err() != nil {
			return last
		}
		f.set(func() { f.failed = fmt.Errorf("read the last good spec: %w", err) })
		select {
		case <-ctx.Done():
		case <-time.After(followAgain):
		}
	}
}

// Changed delivers a value after Now may have changed.
func (f *Followed) Changed() <-chan struct{} { return f.changed }

// Now is the newest good version; fleet.ErrNotFound where there is no such
// object, fleet.ErrUnavailable until that is known.
func (f *Followed) Now() (Fleet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.now != nil:
		return *f.now, nil
	case f.synced:
		return Fleet{}, fmt.Errorf("there is no valid Fleet %s: %w", f.key, fleet.ErrNotFound)
	case f.failed != nil:
		return Fleet{}, errors.Join(f.failed, fleet.ErrUnavailable)
	}
	return Fleet{}, fmt.Errorf("the Fleet %s has not been read yet: %w", f.key, fleet.ErrUnavailable)
}
