package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"muster.dev/muster/internal/fleet"
)

// plain makes sandboxes of Pods.
type plain struct{ s *Sandboxes }

var _ maker = (*plain)(nil)

func (p *plain) api() clientcorev1.PodInterface {
	return p.s.o.Client.CoreV1().Pods(p.s.o.Namespace)
}

// create posts the pod. The request itself is not broken off with ctx: what
// became of it would be unknown.
func (p *plain) create(ctx context.Context, b *box) (*corev1.Pod, error) {
	want := p.s.podOf(b)
	var made *corev1.Pod
	err := p.s.try(ctx, "create pods", func(rc context.Context) error {
		var err error
		made, err = p.api().Create(rc, want, metav1.CreateOptions{FieldManager: fieldManager})
		if refused(err) {
			return err // nothing was made
		}
		b.mu.Lock()
		b.sent = true
		b.mu.Unlock()
		if apierrors.IsAlreadyExists(err) {
			made, err = p.recover(rc, b)
		}
		return err
	})
	return made, err
}

// recover finds the pod of an attempt whose answer was lost.
func (p *plain) recover(ctx context.Context, b *box) (*corev1.Pod, error) {
	pod, err := p.api().Get(ctx, string(b.id), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pod.Annotations[annotationAttempt] != b.attempt || !p.s.o.ours(pod) {
		return nil, fmt.Errorf("a pod of that name is there and not of this attempt: adopt or destroy it: %w", fleet.ErrConflict)
	}
	return pod, nil
}

// remove implements maker.
func (p *plain) remove(ctx context.Context, b *box) error {
	if b.uid != "" {
		return p.delete(ctx, string(b.id), b.uid)
	}
	var uid string
	err := p.s.try(ctx, "get pods", func(rc context.Context) error {
		pod, err := p.recover(rc, b)
		switch {
		case apierrors.IsNotFound(err), errors.Is(err, fleet.ErrConflict): // none, or none of ours
			return nil
		case err != nil:
			return err
		}
		uid = string(pod.UID)
		return nil
	})
	if err != nil || uid == "" {
		return err
	}
	return p.delete(ctx, string(b.id), uid)
}

// reap implements maker.
func (p *plain) reap(ctx context.Context, id fleet.SandboxID) error {
	pod, err := p.find(ctx, id)
	if errors.Is(err, fleet.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.delete(ctx, pod.Name, string(pod.UID))
}

// delete ends the pod with this name and UID, at once.
func (p *plain) delete(ctx context.Context, name, uid string) error {
	at, how := int64(0), metav1.DeletePropagationBackground
	u := types.UID(uid)
	return p.s.try(ctx, "delete pods", func(rc context.Context) error {
		err := p.api().Delete(rc, name, metav1.DeleteOptions{
			GracePeriodSeconds: &at, PropagationPolicy: &how, Preconditions: &metav1.Preconditions{UID: &u},
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, also when another has its name
			return nil
		}
		return err
	})
}

// find implements maker.
func (p *plain) find(ctx context.Context, id fleet.SandboxID) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := p.s.try(ctx, "get pods", func(rc context.Context) error {
		var err error
		pod, err = p.api().Get(rc, string(id), metav1.GetOptions{})
		return err
	})
	if err == nil && !p.s.o.ours(pod) {
		return nil, fmt.Errorf("pod %s is not of this fleet: %w", id, fleet.ErrNotFound)
	}
	return pod, err
}

// pageSize is how many pods are listed per request.
const pageSize = 500

// list implements maker.
func (p *plain) list(ctx context.Context) ([]fleet.SandboxID, error) {
	var ids []fleet.SandboxID
	o := metav1.ListOptions{LabelSelector: p.s.o.selector().String(), Limit: pageSize}
	for {
		var page *corev1.PodList
		err := p.s.try(ctx, "list pods", func(rc context.Context) error {
			var err error
			page, err = p.api().List(rc, o)
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			pod := &page.Items[i]
			if fleet.ValidID("s", pod.Name) && p.s.o.ours(pod) {
				ids = append(ids, fleet.SandboxID(pod.Name))
			}
		}
		if o.Continue = page.Continue; o.Continue == "" {
			slices.Sort(ids)
			return slices.Compact(ids), nil
		}
	}
}
