package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// watch follows the pods of the fleet from now on: one connection, whatever
// their number.
func (s *Sandboxes) watch() error {
	f := informers.NewSharedInformerFactoryWithOptions(s.o.Client, 0,
		informers.WithNamespace(s.o.Namespace), informers.WithTransform(slim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = s.o.selector().String() }))
	pods := f.Core().V1().Pods()
	inf := pods.Informer()
	s.pods = pods.Lister().Pods(s.o.Namespace)
	if err := inf.SetWatchErrorHandlerWithContext(s.lostSight); err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	seen, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.saw(o, false) },
		UpdateFunc: func(_, o any) { s.saw(o, false) },
		DeleteFunc: func(o any) { s.saw(o, true) },
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	s.synced = seen.HasSynced
	s.wg.Go(func() { inf.RunWithContext(s.ctx) })
	return nil
}

// slim drops what nobody reads of ten thousand pods.
func slim(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	kept := *pod // others may have the same object
	kept.ManagedFields = nil
	kept.Spec = corev1.PodSpec{
		NodeName: pod.Spec.NodeName, RuntimeClassName: pod.Spec.RuntimeClassName, HostUsers: pod.Spec.HostUsers,
		SecurityContext: pod.Spec.SecurityContext,
	}
	return &kept, nil
}

// lostSight remembers why the watch does not see. It is tried again by itself.
func (s *Sandboxes) lostSight(_ context.Context, _ *cache.Reflector, err error) {
	s.mu.Lock()
	first := s.blind == nil
	s.blind = err
	s.mu.Unlock()
	if !apierrors.IsForbidden(err) || !first {
		s.o.Logger.Debug("watching pods", "namespace", s.o.Namespace, "error", err)
		return
	}
	err = s.explain("list and watch pods", err)
	s.o.Logger.Error("watching pods", "namespace", s.o.Namespace, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.boxes { // without the watch a start ends only by its time
		b.fail(err)
	}
}

func (s *Sandboxes) saw(o any, gone bool) {
	if u, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = u.Obj
	}
	pod, ok := o.(*corev1.Pod)
	if !ok || !s.o.ours(pod) {
		return
	}
	s.mu.Lock()
	s.blind = nil
	s.mu.Unlock()
	if s.follower != nil {
		s.follower.saw(pod, gone)
	}
	if !gone {
		s.observe(pod)
		return
	}
	s.mu.Lock()
	delete(s.let, string(pod.UID))
	s.mu.Unlock()
	if b := s.o.Exchange.find(string(pod.UID)); b != nil && s.holds(b) {
		s.end(b, removed(pod))
	}
}

// holds reports whether a box of the exchange is this adapter's.
func (s *Sandboxes) holds(b *box) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boxes[b.id] == b
}

// observe takes what a pod looks like now.
func (s *Sandboxes) observe(pod *corev1.Pod) {
	b := s.o.Exchange.find(string(pod.UID))
	if b == nil || !s.holds(b) {
		s.unknown(pod)
		return
	}
	b.mu.Lock()
	if b.pod == nil || !older(pod, b.pod) {
		b.pod = pod
	}
	b.mu.Unlock()
	if e := ending(pod); e != nil {
		s.end(b, e)
		return
	}
	select {
	case <-b.settled:
	default:
		if err := startFailure(pod); err != nil {
			b.fail(err)
		}
	}
}

// older compares versions of one pod; those of another form are taken as they
// come.
func older(a, b *corev1.Pod) bool {
	return len(a.ResourceVersion) == len(b.ResourceVersion) && strings.Compare(a.ResourceVersion, b.ResourceVersion) < 0
}

// unknown removes a pod that this process has asked for and does not wait for
// any more: the answer to its POST was lost, and so it could not be removed
// when its Create failed.
func (s *Sandboxes) unknown(pod *corev1.Pod) {
	process, _, _ := strings.Cut(pod.Annotations[annotationAttempt], ".")
	if process != s.process || pod.DeletionTimestamp != nil {
		return
	}
	id := fleet.SandboxID(pod.Labels[kube.LabelSandbox])
	uid := string(pod.UID)
	s.mu.Lock()
	_, held := s.boxes[id]
	known := s.orphans[uid] || s.let[uid]
	if !held && !known {
		s.orphans[uid] = true
	}
	s.mu.Unlock()
	if held || known { // being made, being removed, or let go
		return
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, undoTime)
		defer cancel()
		p := &plain{s: s}
		err := p.delete(ctx, pod.Name, uid)
		s.mu.Lock()
		delete(s.orphans, uid)
		s.mu.Unlock()
		if err != nil && s.ctx.Err() == nil {
			s.o.Logger.Error("removing a pod that nobody waits for", "sandbox", id, "error", err)
		}
	})
}

// end is told once, of those that come, that a pod is over.
func (s *Sandboxes) end(b *box, why *fleet.ReasonError) {
	b.mu.Lock()
	was := b.ended
	b.ended = true
	expected := b.leaving || b.done || b.released
	b.mu.Unlock()
	if was {
		return
	}
	select {
	case <-b.settled:
		expected = expected || b.err != nil
	default: // Create or Adopt says it
		expected = true
	}
	b.fail(startEnd(why))
	b.session.End(why)
	if !expected {
		s.announce(fleet.SandboxExit{ID: b.id, At: s.o.Clock().Round(0).UTC(), Reason: exitReason(why.Reason), Err: why})
	}
}

// startEnd is the end of a pod that was not ready yet. Its node or its cluster
// is at fault, not the template, unless a limit was.
func startEnd(why *fleet.ReasonError) error {
	if why.Reason == fleet.ReasonNodeLost {
		return fmt.Errorf("the pod ended before it was ready: %w", why.Err)
	}
	return fmt.Errorf("the pod ended before it was ready: %w", errors.Join(why))
}

// exitReason is what SandboxExit may say; the error says more.
func exitReason(r fleet.TaskReason) fleet.TaskReason {
	if r == fleet.ReasonOOM {
		return r
	}
	return fleet.ReasonNodeLost
}
