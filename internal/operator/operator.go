package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// Resource is what Fleets are called in the API.
var Resource = schema.GroupVersionResource{Group: kube.Group, Version: "v1alpha1", Resource: "fleets"}

// Key names a fleet of the cluster.
type Key struct{ Namespace, Name string }

// String is namespace/name.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Fleet is one object, checked and with its defaults.
type Fleet struct {
	Key
	UID  string
	Spec *v1alpha1.Fleet
	// Written is the same without defaults, as JSON; Author and Note say who
	// wrote it and why.
	Written      []byte
	Author, Note string
	// Revision is the number of an earlier specification, where the object's own
	// is not valid and this one goes on; 0: it is the object's own.
	Revision int64
}

// Runner works for one fleet. Run is called once; the others meanwhile and after
// it, from one goroutine, but for Report, which may be called at any time.
type Runner interface {
	// Run works until ctx ends and leaves running tasks alone; an error says why
	// it ended before. It is then made anew, after a pause.
	Run(ctx context.Context) error
	// Update takes a changed fleet over, where Restarts said no.
	Update(f Fleet) error
	// Restarts tells whether a change takes a new Runner.
	Restarts(f Fleet) bool
	// Report says how it is; cheap.
	Report() Report
	// Drain leases nothing more, gives running tasks patience to end, then ends
	// those that are left, and removes everything the fleet has in the cluster.
	// Run goes on meanwhile, or ends with it. It may be repeated after an error.
	// When ctx ends it returns at once and leaves what is left alone.
	Drain(ctx context.Context, patience time.Duration) error
	// Close frees what is held, after Run has returned; sandboxes go on.
	Close()
}

// Report is how a fleet is.
type Report struct {
	Ready    bool
	Sentence string // what binds it
	Endpoint string // path of its API
	Problem  Problem
	Events   []Event // that are new since the last report

	Queued, Running, Standby, Starting, Desired, Nodes int

	Consumers *Consumers // nil: the fleet has none
}

// Problem is what is wrong; the zero value: nothing.
type Problem struct {
	Reason  string // one CamelCase word
	Message string
}

// Event is worth being told at the object.
type Event struct {
	Warning bool
	Reason  string // one CamelCase word
	Message string
}

// Options is what an Operator works with.
type Options struct {
	Client    kubernetes.Interface
	Dynamic   dynamic.Interface
	Namespace string // whose fleets are run; empty: of all namespaces
	Plane     Plane  // what consumers are made after
	// Start makes the Runner of a fleet; ctx ends when starting must.
	Start func(ctx context.Context, f Fleet) (Runner, error)
	// Check says, with fleet.ErrInvalid, what of a valid fleet cannot be done here,
	// before anything is changed for it; nil: nothing.
	Check func(f Fleet) error
	// Past is what a fleet runs by whose object is invalid when it is first seen;
	// nil: such a fleet waits.
	Past Past
	// DrainTimeout bounds how long tasks of a deleted fleet go on, where its
	// annotation says nothing; 0: ten minutes.
	DrainTimeout time.Duration
	// Every is how often reports are taken; default, and least time between two
	// writes of one status: 1 s.
	Every  time.Duration
	Logger *slog.Logger     // default: discard
	Clock  func() time.Time // default: time.Now
}

// Operator runs the fleets of a cluster; use New.
type Operator struct {
	o Options
	r *recorder

	plane plane

	mu      sync.Mutex
	keepers map[Key]*keeper
	synced  bool
	refused error // why fleets cannot be watched
}

// New returns an Operator; Run starts it.
func New(o Options) (*Operator, error) {
	if o.Client == nil || o.Dynamic == nil || o.Start == nil {
		return nil, errors.New("operator: client, dynamic client and start are needed")
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 10 * time.Minute
	}
	if o.Every <= 0 {
		o.Every = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Operator{o: o, plane: plane{Plane: o.Plane}, keepers: map[Key]*keeper{}}, nil
}

// Ready is nil once all fleets have been seen.
func (op *Operator) Ready() error {
	op.mu.Lock()
	defer op.mu.Unlock()
	switch {
	case op.refused != nil:
		return op.refused
	case !op.synced:
		return fmt.Errorf("the fleets of the cluster have not been read yet: %w", fleet.ErrUnavailable)
	}
	return nil
}

// Keys lists the fleets that are run, in order.
func (op *Operator) Keys() []Key {
	op.mu.Lock()
	defer op.mu.Unlock()
	var out []Key
	for k := range op.keepers {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Key) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	return out
}

// Run keeps the fleets until ctx ends, and returns when all that it started has
// ended. Running tasks and sandboxes go on.
func (op *Operator) Run(ctx context.Context) error {
	op.r = newRecorder(op.o.Client)
	defer op.r.close()
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(op.o.Dynamic, 0, op.o.Namespace, nil)
	informer := factory.ForResource(Resource).Informer()
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		op.blind(ctx, err)
	}); err != nil {
		return fmt.Errorf("watch fleets: %w", err)
	}
	var wg sync.WaitGroup
	see := func(o any) { op.see(ctx, &wg, o) }
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: see, UpdateFunc: func(_, o any) { see(o) }, DeleteFunc: op.forget,
	})
	if err != nil {
		return fmt.Errorf("watch fleets: %w", err)
	}
	factory.Start(ctx.Done())
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		op.mu.Lock()
		op.synced, op.refused = true, nil
		op.mu.Unlock()
	}
	<-ctx.Done()
	factory.Shutdown()
	wg.Wait()
	return nil
}

// blind notes that the watch failed, and why.
func (op *Operator) blind(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) {
		return
	}
	err = fault("list", "fleets."+kube.Group, op.o.Namespace, err)
	op.mu.Lock()
	before := op.refused
	op.refused = err
	if op.synced { // what was read stays known
		op.refused = nil
	}
	op.mu.Unlock()
	if before == nil || before.Error() != err.Error() {
		op.o.Logger.Error("cannot watch the fleets of the cluster; trying again", "error", err)
	}
}

// see hands the newest object to its keeper.
func (op *Operator) see(ctx context.Context, wg *sync.WaitGroup, o any) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok || ctx.Err() != nil {
		return
	}
	key := Key{u.GetNamespace(), u.GetName()}
	op.mu.Lock()
	defer op.mu.Unlock()
	k := op.keepers[key]
	if k != nil {
		k.offer(u)
	} else {
		k = newKeeper(op, key)
		k.offer(u)
		op.keepers[key] = k
		wg.Go(func() {
			for k.run(ctx); !op.over(ctx, k); k.run(ctx) {
				k.reset() // another one of the same name
			}
		})
	}
}

// over takes a keeper out unless another object has come for it meanwhile.
func (op *Operator) over(ctx context.Context, k *keeper) bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	if ctx.Err() == nil && k.renewed() {
		return false
	}
	delete(op.keepers, k.key)
	return true
}

// forget ends the keeper of an object that is gone.
func (op *Operator) forget(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	op.mu.Lock()
	defer op.mu.Unlock()
	if k := op.keepers[Key{u.GetNamespace(), u.GetName()}]; k != nil {
		k.lost(string(u.GetUID()))
	}
}
