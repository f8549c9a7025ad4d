package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/util/workqueue"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// The API of the agent-sandbox project (v0.5.6).
var (
	sandboxesGVR = schema.GroupVersionResource{Group: "agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxes"}
	templatesGVR = schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxtemplates"}
	poolsGVR     = schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxwarmpools"}
	claimsGVR    = schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxclaims"}
)

// AgentSandboxServed reports whether a cluster serves the API that
// Options.AgentSandbox needs. An error is not a no.
func AgentSandboxServed(d discovery.DiscoveryInterface) (bool, error) {
	list, err := d.ServerResourcesForGroupVersion(claimsGVR.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask the API server for %s: %w", claimsGVR.Group, err)
	}
	for _, want := range []string{templatesGVR.Resource, poolsGVR.Resource, claimsGVR.Resource} {
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == want }) {
			return false, nil
		}
	}
	return true, nil
}

// warm makes sandboxes of the pods that agent-sandbox keeps ready.
//
// Per pool and revision there is one SandboxTemplate and one SandboxWarmPool,
// whose replicas are written by us alone: the number of creations that wait for
// a pod and of pods in the pool that a sandbox holds. That number is counted
// anew each time, so it cannot compound, and a pool that cannot be scheduled
// never holds more pods than sandboxes were asked for.
//
// A sandbox holds the pod it was given: a label on the pod says so, for the
// next process, too. Its claim asks for that pod by name and follows the task,
// in nobody's way; so a claim never binds another pod, nor starts one. Who
// leaves is removed by name, before the pool shrinks: the pool's controller
// never has a choice that could fall on a pod with a task.
type warm struct {
	s     *Sandboxes
	plain *plain
	kick  chan struct{} // something to be written, perhaps
	queue workqueue.TypedRateLimitingInterface[string]
	wg    sync.WaitGroup

	mu     sync.Mutex
	pools  map[string]*pool
	claims map[string]claim // wanted or made, by the pod's name
}

// claim is what a SandboxClaim is made of.
type claim struct {
	id   fleet.SandboxID
	task fleet.TaskID
	pool string
	at   time.Time
	made bool
}

func newWarm(s *Sandboxes) *warm {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 30*time.Second)
	return &warm{
		s: s, plain: &plain{s: s}, kick: make(chan struct{}, 1),
		queue: workqueue.NewTypedRateLimitingQueue(limit), pools: map[string]*pool{}, claims: map[string]claim{},
	}
}

var _ maker = (*warm)(nil)
var _ follower = (*warm)(nil)

// create waits for a pod of the pool of this template and takes it.
func (w *warm) create(ctx context.Context, b *box) (*corev1.Pod, error) {
	if w.holding(b.id) != nil {
		return nil, fmt.Errorf("a pod holds that sandbox already: adopt or destroy it: %w", fleet.ErrConflict)
	}
	if err := w.seen(ctx); err != nil {
		return nil, err
	}
	p, err := w.poolOf(ctx, b)
	if err != nil {
		return nil, err
	}
	for {
		pod, err := w.wait(ctx, p, b)
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		b.sent = true
		b.pod = pod
		b.mu.Unlock()
		err = w.name(ctx, b, pod)
		if !errors.Is(err, errPodGone) {
			return pod, err
		}
		w.lost(p, string(pod.UID)) // and wait for another
	}
}

// seen waits until the watch has shown what is there: who holds what.
func (w *warm) seen(ctx context.Context) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for !w.s.synced() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("the pods of the fleet were not seen yet: %w", ctx.Err())
		}
	}
	return nil
}

// wait queues for a pod.
func (w *warm) wait(ctx context.Context, p *pool, b *box) (*corev1.Pod, error) {
	wt := &waiter{id: b.id, got: make(chan *corev1.Pod, 1)}
	w.mu.Lock()
	p.waiting = append(p.waiting, wt)
	p.assign()
	w.mu.Unlock()
	w.wake()
	select {
	case pod := <-wt.got:
		return pod, nil
	case <-ctx.Done():
	}
	w.mu.Lock()
	p.waiting = slices.DeleteFunc(p.waiting, func(o *waiter) bool { return o == wt })
	select {
	case pod := <-wt.got: // at the same moment: back with it
		p.release(string(pod.UID))
	default:
	}
	w.mu.Unlock()
	w.wake()
	return nil, fmt.Errorf("warm pool %s has brought no pod (its controller is agent-sandbox's): %w", p.name, ctx.Err())
}

var errPodGone = fmt.Errorf("the pod is gone: %w", fleet.ErrNotFound)

// name writes on the pod which sandbox it is.
func (w *warm) name(ctx context.Context, b *box, pod *corev1.Pod) error {
	patch, err := encode(map[string]any{"metadata": map[string]any{
		"uid":    pod.UID, // of another pod with this name nothing is changed
		"labels": map[string]string{kube.LabelSandbox: string(b.id), kube.LabelState: stateReady},
	}})
	if err != nil {
		return err
	}
	return w.s.try(ctx, "patch pods", func(rc context.Context) error {
		_, err := w.plain.api().Patch(rc, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return errPodGone
		}
		return err
	})
}

// remove implements maker.
func (w *warm) remove(ctx context.Context, b *box) error {
	pod := b.seen()
	if pod == nil {
		return nil // it never got one
	}
	return w.end(ctx, pod)
}

// end removes a sandbox by name, with its claim. The order is what matters: a
// claim without its sandbox would make another one, and a sandbox without its
// pod another pod.
func (w *warm) end(ctx context.Context, pod *corev1.Pod) error {
	w.mu.Lock()
	_, claimed := w.claims[pod.Name]
	delete(w.claims, pod.Name)
	w.mu.Unlock()
	if claimed || !pooled(pod) || pod.Labels[kube.LabelState] == stateTaken {
		if err := w.erase(ctx, claimsGVR, pod.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	if o := metav1.GetControllerOf(pod); o != nil {
		// In the foreground: until its pod is gone it counts as leaving, and its
		// pool does not replace what we are about to want no more.
		how := metav1.DeletePropagationForeground
		err := w.erase(ctx, sandboxesGVR, o.Name, metav1.DeleteOptions{
			PropagationPolicy: &how, Preconditions: &metav1.Preconditions{UID: &o.UID},
		})
		if err != nil {
			return err
		}
	}
	w.left(pod)
	uid := string(pod.UID)
	if now, err := w.s.pods.Get(pod.Name); err == nil && sameOwner(now, pod) {
		uid = string(now.UID) // its sandbox made it anew when it was lost
	}
	return w.plain.delete(ctx, pod.Name, uid)
}

// erase deletes one object; it is no error that it is gone, or another by that
// name.
func (w *warm) erase(ctx context.Context, r schema.GroupVersionResource, name string, o metav1.DeleteOptions) error {
	return w.s.try(ctx, "delete "+r.Resource, func(rc context.Context) error {
		err := w.s.o.Dynamic.Resource(r).Namespace(w.s.o.Namespace).Delete(rc, name, o)
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

// reap implements maker.
func (w *warm) reap(ctx context.Context, id fleet.SandboxID) error {
	pods, err := w.podsOf(ctx, id)
	if err != nil {
		return err
	}
	var errs []error
	for i := range pods {
		errs = append(errs, w.end(ctx, &pods[i]))
	}
	made, err := w.listClaims(ctx, id)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for i := range made { // their pod is gone, or being made anew
		errs = append(errs, w.erase(ctx, claimsGVR, made[i].GetName(), metav1.DeleteOptions{}))
	}
	return errors.Join(errs...)
}

// find implements maker.
func (w *warm) find(ctx context.Context, id fleet.SandboxID) (*corev1.Pod, error) {
	pods, err := w.podsOf(ctx, id)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if pods[i].DeletionTimestamp == nil {
			return &pods[i], nil
		}
	}
	return nil, fmt.Errorf("no pod of this fleet holds %s: %w", id, fleet.ErrNotFound)
}

// podsOf asks the API server for the pods that hold a sandbox, of all where id
// is empty.
func (w *warm) podsOf(ctx context.Context, id fleet.SandboxID) ([]corev1.Pod, error) {
	var all []corev1.Pod
	o := metav1.ListOptions{LabelSelector: w.s.o.selector().String() + "," + kube.LabelSandbox, Limit: pageSize}
	if id != "" {
		o.LabelSelector += "=" + string(id)
	}
	for {
		var page *corev1.PodList
		err := w.s.try(ctx, "list pods", func(rc context.Context) error {
			var err error
			page, err = w.plain.api().List(rc, o)
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			if pod := &page.Items[i]; w.s.o.ours(pod) && fleet.ValidID("s", pod.Labels[kube.LabelSandbox]) {
				all = append(all, *pod)
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return all, nil
		}
	}
}

// listClaims asks the API server for the claims of a sandbox, of all where id
// is empty.
func (w *warm) listClaims(ctx context.Context, id fleet.SandboxID) ([]unstructured.Unstructured, error) {
	selector := w.s.o.selector()
	if id != "" {
		selector[kube.LabelSandbox] = string(id)
	}
	var all []unstructured.Unstructured
	o := metav1.ListOptions{LabelSelector: selector.String(), Limit: pageSize}
	for {
		var page *unstructured.UnstructuredList
		err := w.s.try(ctx, "list "+claimsGVR.Resource, func(rc context.Context) error {
			var err error
			page, err = w.s.o.Dynamic.Resource(claimsGVR).Namespace(w.s.o.Namespace).List(rc, o)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return all, nil
		}
	}
}

// list implements maker: pods that hold a sandbox, and claims, whose pod may be
// gone.
func (w *warm) list(ctx context.Context) ([]fleet.SandboxID, error) {
	pods, err := w.podsOf(ctx, "")
	if err != nil {
		return nil, err
	}
	made, err := w.listClaims(ctx, "")
	if err != nil {
		return nil, err
	}
	var ids []fleet.SandboxID
	for i := range pods {
		ids = append(ids, fleet.SandboxID(pods[i].Labels[kube.LabelSandbox]))
	}
	for i := range made {
		if id := made[i].GetLabels()[kube.LabelSandbox]; made[i].GetDeletionTimestamp() == nil && fleet.ValidID("s", id) {
			ids = append(ids, fleet.SandboxID(id))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func sameOwner(a, b *corev1.Pod) bool {
	x, y := metav1.GetControllerOf(a), metav1.GetControllerOf(b)
	return x != nil && y != nil && x.UID == y.UID
}
