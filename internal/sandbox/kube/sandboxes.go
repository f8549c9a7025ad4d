package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// Sandboxes is fleet.Sandboxes of one fleet in a cluster; use New.
type Sandboxes struct {
	o        Options
	maker    maker
	follower follower    // the maker, where it is one; else nil
	synced   func() bool // the watch has shown everything there was
	process  string      // tells the pods of this process from those of all others
	pods     corelisters.PodNamespaceLister
	marks    *marks
	metrics  *metrics
	classes  classes

	exits  chan fleet.SandboxExit
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	boxes   map[fleet.SandboxID]*box
	blind   error // why the watch does not see
	orphans map[string]bool
	let     map[string]bool // UIDs of pods that were let go and live on
}

var (
	_ fleet.Sandboxes = (*Sandboxes)(nil)
	_ fleet.Releaser  = (*Sandboxes)(nil)
)

// maker makes and removes what a sandbox is in the cluster.
type maker interface {
	// create asks for the sandbox and returns the pod it will be. An error may
	// leave something behind, which remove finds by the box.
	create(ctx context.Context, b *box) (*corev1.Pod, error)
	// remove ends what was made for b; nil when it is gone. Idempotent.
	remove(ctx context.Context, b *box) error
	// reap ends what carries our labels under this id, whoever made it.
	reap(ctx context.Context, id fleet.SandboxID) error
	// find returns the pod of a sandbox of this fleet, fleet.ErrNotFound where
	// there is none.
	find(ctx context.Context, id fleet.SandboxID) (*corev1.Pod, error)
	// list returns everything of this fleet, from the API server itself.
	list(ctx context.Context) ([]fleet.SandboxID, error)
}

// follower is a maker that also follows what happens to pods and sandboxes.
type follower interface {
	maker
	start(ctx context.Context) error
	stop()
	saw(pod *corev1.Pod, gone bool)    // a pod of the fleet, as it is now; does not block
	claimed(b *box, task fleet.TaskID) // a sandbox has accepted a task; does not block
}

// New opens the adapter of a fleet: it makes or corrects the fleet's network
// policies and begins to watch its pods. It touches no sandbox: see List,
// Adopt and Destroy. fleet.ErrDenied names the right that is missing,
// fleet.ErrUnavailable says that the API server is away.
func New(ctx context.Context, o Options) (*Sandboxes, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	s := &Sandboxes{
		o: o, process: rand.Text()[:16],
		exits: make(chan fleet.SandboxExit, 1024), boxes: map[fleet.SandboxID]*box{}, orphans: map[string]bool{}, let: map[string]bool{},
	}
	if err := s.ensurePolicies(ctx); err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.maker = &plain{s: s}
	if o.AgentSandbox {
		s.follower = newWarm(s)
		s.maker = s.follower
	}
	s.metrics = newMetrics(o)
	s.marks = newMarks(s)
	err := s.watch()
	if err == nil && s.follower != nil {
		err = s.follower.start(ctx)
	}
	if err != nil {
		s.cancel()
		s.quiet()
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	s.marks.start()
	o.Exchange.serve(s)
	return s, nil
}

// selector selects the pods of this fleet's sandboxes.
func (o Options) selector() labels.Set {
	return labels.Set{kube.LabelOwner: kube.Owner, kube.LabelFleet: o.Fleet, kube.LabelRole: kube.RoleSandbox}
}

// ours reports whether an object carries all of our labels. Fakes and
// mistakes do not keep to selectors.
func (o Options) ours(m metav1.Object) bool {
	return m.GetNamespace() == o.Namespace && o.selector().AsSelector().Matches(labels.Set(m.GetLabels()))
}

// open is an error once the adapter is closed.
func (s *Sandboxes) open() error {
	if s.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

var errClosed = fmt.Errorf("sandboxes are closed: %w", fleet.ErrUnavailable)

// List implements fleet.Sandboxes: what the API server has, not what was seen
// of it.
func (s *Sandboxes) List(ctx context.Context) ([]fleet.SandboxID, error) {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	ids, err := s.maker.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	// One whose pod others have removed is still held here, until Destroy.
	s.mu.Lock()
	for id, b := range s.boxes {
		b.mu.Lock()
		if b.ended {
			ids = append(ids, id)
		}
		b.mu.Unlock()
	}
	s.mu.Unlock()
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Exited implements fleet.Sandboxes.
func (s *Sandboxes) Exited() <-chan fleet.SandboxExit { return s.exits }

// announce never holds up the watch.
func (s *Sandboxes) announce(e fleet.SandboxExit) {
	select {
	case s.exits <- e:
		return
	default:
	}
	s.wg.Go(func() {
		select {
		case s.exits <- e:
		case <-s.ctx.Done():
		}
	})
}

// find returns a sandbox this process holds and that has not ended.
func (s *Sandboxes) find(id fleet.SandboxID) (*box, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil || !b.ready() {
		return nil, fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
	}
	return b, nil
}

// Destroy implements fleet.Sandboxes.
func (s *Sandboxes) Destroy(ctx context.Context, id fleet.SandboxID) error {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", id, err)
	}
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil {
		if err := s.maker.reap(ctx, id); err != nil {
			return fmt.Errorf("destroy sandbox %s: %w", id, err)
		}
		return nil
	}
	b.mu.Lock()
	b.leaving = true
	b.mu.Unlock()
	b.fail(errDestroyed)
	select {
	case <-b.settled:
	case <-ctx.Done():
		return fmt.Errorf("destroy sandbox %s: %w", id, ctx.Err())
	}
	if err := s.maker.remove(ctx, b); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", id, err)
	}
	s.forget(b)
	return nil
}

// forget is the end of a box whose pod is gone.
func (s *Sandboxes) forget(b *box) {
	s.drop(b)
	if b.uid != "" {
		s.o.Sessions.Forget(b.uid)
	}
}

var errDestroyed = fmt.Errorf("the sandbox was destroyed while it started: %w", fleet.ErrConflict)

// Close implements fleet.Sandboxes. Creates that are under way fail and are
// undone.
func (s *Sandboxes) Close() error {
	s.o.Exchange.leave(s)
	s.cancel()
	s.mu.Lock()
	boxes := make([]*box, 0, len(s.boxes))
	for _, b := range s.boxes {
		boxes = append(boxes, b)
	}
	s.mu.Unlock()
	var errs []error
	for _, b := range boxes {
		<-b.settled
		errs = append(errs, s.release(b))
	}
	s.quiet()
	return errors.Join(errs...)
}

// quiet waits until nothing of the adapter runs; its context has ended.
func (s *Sandboxes) quiet() {
	s.marks.stop()
	if s.follower != nil {
		s.follower.stop()
	}
	s.wg.Wait()
}
