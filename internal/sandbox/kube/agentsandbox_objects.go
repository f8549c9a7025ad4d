package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

const (
	// annotationAssigned says on a claim which sandbox it is for. The controller
	// writes it when it has chosen; where it is there already it completes that
	// choice and makes no other (agent-sandbox
	// extensions/controllers/sandboxclaim_controller.go, getOrCreateSandbox).
	annotationAssigned = "agents.x-k8s.io/sandbox-name"
	// claimKept is how long a claim outlives its pod where nobody deletes it any
	// more, in seconds.
	claimKept = 600

	claimWorkers = 8
	claimTries   = 10
)

// templateOf is the SandboxTemplate of a sandbox's pool: its pod without what
// is of one sandbox. The name is that of its content and of the fleet, so that
// another revision is another pool, and another fleet's never the same.
func (w *warm) templateOf(b *box) (string, map[string]any, error) {
	like := newBox(b.spec, nil)
	like.id, like.class, like.runtime = "", b.class, b.runtime
	like.spec.Node = "" // the pods of a pool are alike
	pod := w.s.podOf(like)
	labels, notes := pod.Labels, pod.Annotations
	// The controller puts back what a template says: what changes is not in it.
	for _, k := range []string{kube.LabelSandbox, kube.LabelState} {
		delete(labels, k)
	}
	for _, k := range []string{annotationAttempt, kube.AnnotationSafeToEvict} {
		delete(notes, k)
	}
	spec, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&pod.Spec)
	if err != nil {
		return "", nil, fmt.Errorf("write the template of a pool: %w", err)
	}
	content, err := json.Marshal([]any{w.s.o.Fleet, labels, notes, spec})
	if err != nil {
		return "", nil, fmt.Errorf("write the template of a pool: %w", err)
	}
	sum := sha256.Sum256(content)
	name := "muster-" + hex.EncodeToString(sum[:8])
	notes[annotationWarmPool] = name
	return name, map[string]any{
		"podTemplate": map[string]any{
			"metadata": map[string]any{"labels": anyMap(labels), "annotations": anyMap(notes)}, "spec": spec,
		},
		"networkPolicyManagement": "Unmanaged", // the fleet's own are stricter
		"envVarsInjectionPolicy":  "Disallowed",
		"service":                 false,
	}, nil
}

func anyMap(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// object is one of ours.
func (w *warm) object(kind, name string, spec map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	o.SetGroupVersionKind(claimsGVR.GroupVersion().WithKind(kind))
	o.SetName(name)
	o.SetNamespace(w.s.o.Namespace)
	o.SetLabels(maps.Clone(w.s.o.selector()))
	return o
}

// ensure creates o where it is not there.
func (w *warm) ensure(ctx context.Context, r schema.GroupVersionResource, o *unstructured.Unstructured) error {
	return w.s.try(ctx, "create "+r.Resource, func(rc context.Context) error {
		_, err := w.s.o.Dynamic.Resource(r).Namespace(w.s.o.Namespace).Create(rc, o, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

func replicasOf(o *unstructured.Unstructured) int {
	n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
	return int(n)
}

// start implements follower: it finds the pools of earlier processes and
// begins to write.
func (w *warm) start(ctx context.Context) error {
	var list *unstructured.UnstructuredList
	err := w.s.try(ctx, "list "+poolsGVR.Resource, func(rc context.Context) error {
		var err error
		list, err = w.s.o.Dynamic.Resource(poolsGVR).Namespace(w.s.o.Namespace).
			List(rc, metav1.ListOptions{LabelSelector: w.s.o.selector().String()})
		return err
	})
	if errors.Is(err, fleet.ErrNotFound) {
		return fmt.Errorf("this cluster does not serve the API of agent-sandbox: install it, or use plain pods: %w", err)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	for i := range list.Items {
		o := &list.Items[i]
		if !w.s.o.ours(o) {
			continue
		}
		p := w.pools[o.GetName()]
		if p == nil {
			p = w.found(o.GetName(), 0)
		}
		p.made, p.written = true, replicasOf(o)
	}
	w.mu.Unlock()
	w.wg.Go(func() { w.scale(w.s.ctx) })
	for range claimWorkers {
		w.wg.Go(w.work)
	}
	return nil
}

// stop implements follower.
func (w *warm) stop() {
	w.queue.ShutDown()
	w.wg.Wait()
}

// claimed implements follower: the claim follows the task.
func (w *warm) claimed(b *box, task fleet.TaskID) {
	pod := b.seen()
	if pod == nil {
		return
	}
	w.mu.Lock()
	if _, ok := w.claims[pod.Name]; !ok {
		w.claims[pod.Name] = claim{id: b.id, task: task, pool: pod.Annotations[annotationWarmPool]}
	}
	w.mu.Unlock()
	w.queue.Add(pod.Name)
}

func (w *warm) work() {
	for {
		name, closed := w.queue.Get()
		if closed {
			return
		}
		err := w.claim(name)
		switch {
		case err == nil, w.s.ctx.Err() != nil:
			w.queue.Forget(name)
		case w.queue.NumRequeues(name) < claimTries && (passing(err) || apierrors.IsForbidden(err)):
			w.queue.AddRateLimited(name)
		default:
			w.queue.Forget(name)
			w.s.o.Logger.Error("a sandbox with a task could not be claimed: it is still counted in its pool",
				"pod", name, "error", w.s.explain("create "+claimsGVR.Resource, err))
		}
		w.queue.Done(name)
	}
}

// claim makes the SandboxClaim of a pod with a task. Its name is the pod's:
// the controller never makes a sandbox for a claim by the name of one that
// another owns, so there is no claim that starts a pod.
func (w *warm) claim(name string) error {
	w.mu.Lock()
	c, ok := w.claims[name]
	w.mu.Unlock()
	if !ok || c.made {
		return nil
	}
	o := w.object("SandboxClaim", name, map[string]any{
		"warmPoolRef": map[string]any{"name": c.pool},
		"lifecycle":   map[string]any{"ttlSecondsAfterFinished": int64(claimKept), "shutdownPolicy": "Delete"},
		"additionalPodMetadata": map[string]any{"annotations": map[string]any{
			kube.AnnotationTask: string(c.task), kube.AnnotationSafeToEvict: "false", kube.AnnotationDoNotDisrupt: "true",
		}},
	})
	labels := o.GetLabels()
	labels[kube.LabelSandbox] = string(c.id)
	o.SetLabels(labels)
	o.SetAnnotations(map[string]string{annotationAssigned: name, kube.AnnotationTask: string(c.task)})
	ctx, cancel := context.WithTimeout(w.s.ctx, requestTime)
	defer cancel()
	_, err := w.s.o.Dynamic.Resource(claimsGVR).Namespace(w.s.o.Namespace).Create(ctx, o, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	w.mu.Lock()
	now, ok := w.claims[name]
	if ok {
		now.made = true
		w.claims[name] = now
	}
	w.mu.Unlock()
	if ok {
		return nil
	}
	// Its sandbox was destroyed meanwhile.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(w.s.ctx), undoTime)
	defer cancel()
	return w.erase(ctx, claimsGVR, name, metav1.DeleteOptions{})
}
