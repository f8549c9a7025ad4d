package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// keeper keeps one fleet: all of it happens in its goroutine, but for offer and
// lost.
type keeper struct {
	op   *Operator
	key  Key
	wake chan struct{}

	mu     sync.Mutex
	newest *unstructured.Unstructured
	gone   string // UID of one that is gone

	seen  *unstructured.Unstructured // the newest one that was looked at
	known version                    // what was read of it
	fleet Fleet                      // the last good one
	bad   error                      // why seen is not
	// recheck is when seen is read again, though it is the same; zero: never.
	recheck time.Time
	runner  Runner
	stop    context.CancelFunc
	ended   chan error // of the runner
	failed  error      // why there is no runner
	again   time.Time  // when it is tried again
	pause   time.Duration
	drain   *draining
	status  written

	deployed deployed // the consumers
}

// version is one spec of one object.
type version struct {
	uid        types.UID
	generation int64
}

// draining is the end of a fleet.
type draining struct {
	done chan error
	stop context.CancelFunc
}

func newKeeper(op *Operator, key Key) *keeper {
	return &keeper{op: op, key: key, wake: make(chan struct{}, 1)}
}

// offer hands over the newest object.
func (k *keeper) offer(u *unstructured.Unstructured) {
	k.mu.Lock()
	k.newest = u
	k.mu.Unlock()
	k.poke()
}

// lost says that an object is gone. One that was not drained lost its finalizer
// by hand.
func (k *keeper) lost(uid string) {
	k.mu.Lock()
	k.gone = uid
	k.mu.Unlock()
	k.poke()
}

// renewed tells whether there is an object that was not looked at yet, of
// another life than the one that was.
func (k *keeper) renewed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen != nil && k.newest.GetUID() != k.seen.GetUID() && string(k.newest.GetUID()) != k.gone
}

// reset forgets an object that is gone.
func (k *keeper) reset() {
	k.seen, k.known, k.fleet, k.bad, k.failed = nil, version{}, Fleet{}, nil, nil
	k.again, k.recheck, k.pause, k.status, k.deployed = time.Time{}, time.Time{}, 0, written{}, deployed{}
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run keeps the fleet until ctx ends or it is gone.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(k.op.o.Every)
	defer tick.Stop()
	defer k.end()
	for ctx.Err() == nil {
		k.mu.Lock()
		u, gone := k.newest, k.gone
		k.mu.Unlock()
		if k.seen != nil && (gone == string(k.seen.GetUID()) || u.GetUID() != k.seen.GetUID()) {
			k.abandoned(ctx)
			return
		}
		k.seen = u
		if over := k.step(ctx, u); over {
			return
		}
		k.report(ctx)
		ended := k.ended
		if k.drain != nil {
			ended = nil // it ends with the drain
		}
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-tick.C:
		case err := <-ended:
			k.broke(err)
		}
	}
}

// step brings the fleet closer to its object; true when it is over.
func (k *keeper) step(ctx context.Context, u *unstructured.Unstructured) bool {
	if u.GetDeletionTimestamp() != nil {
		return k.depart(ctx, u)
	}
	if !slices.Contains(u.GetFinalizers(), v1alpha1.DrainFinalizer) {
		if err := k.finalizer(ctx, true); err != nil {
			k.problem(err)
			return false // nothing is started that would be left behind
		}
	}
	if k.isNews(u) {
		k.read(ctx, u)
		k.adapt()
	}
	if k.runner == nil && k.fleet.Spec != nil && !k.op.o.Clock().Before(k.again) {
		k.start(ctx)
	}
	return false
}

// isNews tells whether an object is to be read.
func (k *keeper) isNews(u *unstructured.Unstructured) bool {
	v := version{u.GetUID(), u.GetGeneration()}
	if v != k.known {
		k.known, k.again = v, time.Time{} // a change is a reason to try at once
		return true
	}
	return !k.recheck.IsZero() && !k.op.o.Clock().Before(k.recheck)
}

// problem notes why a fleet cannot be started.
func (k *keeper) problem(err error) {
	if k.failed == nil || k.failed.Error() != err.Error() {
		k.op.o.Logger.Error("cannot run a fleet; trying again", "fleet", k.key.String(), "error", err)
	}
	k.failed = err
}

// adapt brings a changed fleet to its runner.
func (k *keeper) adapt() {
	if k.bad != nil || k.runner == nil {
		return
	}
	if k.runner.Restarts(k.fleet) {
		k.op.o.Logger.Info("a fleet is restarted to take its change over", "fleet", k.key.String())
		k.end()
		return
	}
	if err := k.runner.Update(k.fleet); err != nil {
		k.bad = err
	}
}

// start makes a runner and lets it run.
func (k *keeper) start(ctx context.Context) {
	r, err := k.op.o.Start(ctx, k.fleet)
	if err != nil {
		if ctx.Err() == nil {
			k.problem(err)
			k.later()
		}
		return
	}
	k.failed, k.runner = nil, r
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	k.stop, k.ended = stop, ended
	go func() { ended <- r.Run(run) }()
	k.op.o.Logger.Info("running a fleet", "fleet", k.key.String())
}

// later puts the next try off.
func (k *keeper) later() {
	k.pause = min(max(time.Second, 2*k.pause), time.Minute)
	k.again = k.op.o.Clock().Add(k.pause)
}

// broke deals with a runner that ended by itself.
func (k *keeper) broke(err error) {
	k.stop()
	k.runner.Close()
	k.runner, k.ended = nil, nil
	if err == nil {
		err = errors.New("it ended without a word")
	}
	k.problem(fmt.Errorf("the fleet ended: %w", err))
	k.later()
}

// end stops the runner and waits for it; tasks go on.
func (k *keeper) end() {
	if k.drain != nil {
		k.breakOff()
	}
	if k.runner == nil {
		return
	}
	k.stop()
	if err := <-k.ended; err != nil && !errors.Is(err, context.Canceled) {
		k.op.o.Logger.Warn("a fleet did not end well", "fleet", k.key.String(), "error", err)
	}
	k.runner.Close()
	k.runner, k.ended = nil, nil
}

// depart drains a deleted fleet and lets its object go; true when that is done.
func (k *keeper) depart(ctx context.Context, u *unstructured.Unstructured) bool {
	if !slices.Contains(u.GetFinalizers(), v1alpha1.DrainFinalizer) {
		return true // somebody else's finalizer holds it
	}
	if k.runner == nil && k.fleet.Spec == nil && k.isNews(u) {
		if k.isGone(ctx) {
			return true
		}
		k.read(ctx, u)
	}
	if k.runner == nil && k.fleet.Spec == nil && !k.recheck.IsZero() {
		return false // what it had is not known yet
	}
	if k.runner == nil && k.fleet.Spec != nil {
		// An earlier process may have left sandboxes: they are taken over to be
		// given back.
		if k.op.o.Clock().Before(k.again) {
			return false
		}
		if k.start(ctx); k.runner == nil {
			return false
		}
	}
	if k.runner != nil && !k.drained(ctx, u) {
		return false
	}
	k.end()
	err := k.undeploy(ctx)
	if err == nil && k.fleet.Spec == nil && hasRun(u) {
		err = Sweep(ctx, k.op.o.Dynamic, k.key) // the store knows nothing of it any more
	}
	if err != nil {
		k.problem(err)
		return false
	}
	if err := k.finalizer(ctx, false); err != nil {
		k.problem(err)
		return false
	}
	k.op.o.Logger.Info("a fleet is drained and gone", "fleet", k.key.String())
	return true
}

// drained drains the runner, over several calls.
func (k *keeper) drained(ctx context.Context, u *unstructured.Unstructured) bool {
	if k.drain == nil {
		bound := drainTimeout(u, k.op.o.DrainTimeout)
		run, stop := context.WithCancel(ctx)
		d := &draining{done: make(chan error, 1), stop: stop}
		k.drain = d
		r := k.runner
		k.op.o.Logger.Info("draining a deleted fleet", "fleet", k.key.String(), "bound", bound)
		go func() {
			defer k.poke()
			d.done <- r.Drain(run, bound)
		}()
	}
	select {
	case err := <-k.drain.done:
		k.drain.stop()
		k.drain = nil
		if err != nil {
			if ctx.Err() == nil {
				k.problem(fmt.Errorf("drain the fleet: %w", err))
			}
			return false
		}
		return true
	default:
		return false
	}
}

// breakOff ends a drain; whoever comes next goes on with it.
func (k *keeper) breakOff() {
	k.drain.stop()
	if err := <-k.drain.done; err != nil && !errors.Is(err, context.Canceled) {
		k.op.o.Logger.Warn("a drain did not end well", "fleet", k.key.String(), "error", err)
	}
	k.drain = nil
}

// abandoned gives back what a fleet has whose object went without a word.
func (k *keeper) abandoned(ctx context.Context) {
	if k.runner == nil {
		return
	}
	if k.drain != nil {
		k.breakOff()
	}
	k.op.o.Logger.Warn("a fleet is gone without having been drained; ending its tasks", "fleet", k.key.String())
	err := errors.Join(k.runner.Drain(ctx, 0), k.undeploy(ctx))
	if err != nil && ctx.Err() == nil {
		k.op.o.Logger.Error("cannot give back what a fleet had", "fleet", k.key.String(), "error", err)
	}
}

// isGone asks the API server whether the object is there: what the watch shows
// last of one may be older than its end.
func (k *keeper) isGone(ctx context.Context) bool {
	_, err := k.op.o.Dynamic.Resource(Resource).Namespace(k.key.Namespace).Get(ctx, k.key.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}

// drainTimeout is what the annotation says, else otherwise. The time counts
// from the deletion, so that another process does not begin anew.
func drainTimeout(u *unstructured.Unstructured, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(u.GetAnnotations()[v1alpha1.AnnotationDrainTimeout]); err == nil && d >= 0 {
		otherwise = d
	}
	if at := u.GetDeletionTimestamp(); at != nil {
		otherwise -= time.Since(at.Time)
	}
	return max(0, otherwise)
}

// finalizer adds or removes ours.
func (k *keeper) finalizer(ctx context.Context, want bool) error {
	objects := k.op.o.Dynamic.Resource(Resource).Namespace(k.key.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		u, err := objects.Get(ctx, k.key.Name, metav1.GetOptions{})
		if err != nil {
			return fault("get", "fleets.muster.dev", k.key.Namespace, err)
		}
		have := u.GetFinalizers()
		if slices.Contains(have, v1alpha1.DrainFinalizer) == want {
			return nil
		}
		next := slices.DeleteFunc(slices.Clone(have), func(s string) bool { return s == v1alpha1.DrainFinalizer })
		if want {
			next = append(next, v1alpha1.DrainFinalizer)
		}
		u.SetFinalizers(next)
		_, err = objects.Update(ctx, u, metav1.UpdateOptions{})
		return err
	})
	switch {
	case errors.Is(err, fleet.ErrNotFound) && !want:
		return nil
	case err != nil && !errors.Is(err, fleet.ErrDenied) && !errors.Is(err, fleet.ErrNotFound):
		return fault("update", "fleets.muster.dev", k.key.Namespace, err)
	}
	return err
}
