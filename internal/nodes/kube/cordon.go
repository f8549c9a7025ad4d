package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// undoWithin bounds an undo after the caller has gone.
const undoWithin = 5 * time.Second

// Cordon implements fleet.Nodes. A node that somebody cordoned by hand stays
// so.
func (n *Nodes) Cordon(ctx context.Context, id fleet.NodeID) error {
	return n.cordon(ctx, id, "cordon", func(m *machine) (string, bool) {
		return markCordoned, !m.closed
	})
}

// Uncordon implements fleet.Nodes. ErrConflict: it was cordoned by hand, and
// whoever did that decides.
func (n *Nodes) Uncordon(ctx context.Context, id fleet.NodeID) error {
	return n.cordon(ctx, id, "uncordon", func(m *machine) (string, bool) {
		return "", m.closed
	})
}

func (n *Nodes) cordon(ctx context.Context, id fleet.NodeID, verb string, next func(*machine) (string, bool)) error {
	if err := n.lock(ctx); err != nil {
		return fmt.Errorf("%s node %s: %w", verb, id, err)
	}
	defer n.unlock()
	m, err := n.find(id)
	if err != nil {
		return fmt.Errorf("%s node %s: %w", verb, id, err)
	}
	mark, needed := next(m)
	switch {
	case !needed:
		return nil
	case mark == "" && m.mark == "":
		return fmt.Errorf("%s node %s: it was cordoned by hand: %w", verb, id, fleet.ErrConflict)
	}
	if err := n.mark(ctx, m.key, mark); err != nil {
		return fmt.Errorf("%s node %s: %w", verb, id, err)
	}
	return nil
}

// mark closes a node and says that it was us, or opens it with an empty mark.
func (n *Nodes) mark(ctx context.Context, node, mark string) error {
	var note, closed any
	if mark != "" {
		note, closed = mark, true
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{annotationCordon: note}},
		"spec":     map[string]any{"unschedulable": closed},
	})
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	after, err := n.o.Client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: kube.Owner})
	if err != nil {
		return fault("patch", "nodes", err)
	}
	n.watch.nodes.wrote(machineOf(after))
	return nil
}

// busy names a sandbox that is on a node, of any fleet; empty: there is none.
// The API server is asked, since what is watched may be late.
func (n *Nodes) busy(ctx context.Context, node string) (string, error) {
	l, err := n.o.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		LabelSelector: kube.LabelOwner + "=" + kube.Owner + "," + kube.LabelRole + "=" + kube.RoleSandbox,
		FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return "", fault("list", "pods", err)
	}
	for i := range l.Items {
		p := &l.Items[i]
		if p.Spec.NodeName == node && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			return p.Namespace + "/" + p.Name, nil
		}
	}
	return "", nil
}

// takeBack puts a node that was given back into service again.
func (n *Nodes) takeBack(ctx context.Context, m *machine) error {
	now := n.o.Clock()
	if err := n.hold(ctx, m, &hold{boot: m.key, requested: now, ready: now}); err != nil {
		return err
	}
	return n.mark(ctx, m.key, "")
}

// hold puts the pod on a node that keeps it.
func (n *Nodes) hold(ctx context.Context, m *machine, h *hold) error {
	want := n.o.holdPod(m.key, h)
	pods := n.o.Client.CoreV1().Pods(n.o.Namespace)
	made, err := pods.Create(ctx, want, metav1.CreateOptions{FieldManager: kube.Owner})
	if apierrors.IsAlreadyExists(err) {
		// Left by an earlier life of the node or of ours; what it remembers is out
		// of date.
		if err = n.deletePod(ctx, want.Name); err == nil {
			made, err = pods.Create(ctx, want, metav1.CreateOptions{FieldManager: kube.Owner})
		}
	}
	if err != nil {
		return fault("create", "pods", err)
	}
	n.watch.pods.wrote(podOf(made))
	return nil
}

// unhold takes that pod away.
func (n *Nodes) unhold(ctx context.Context, node string) error {
	_, held := n.watch.used.of(node, n.o.key())
	if held == nil {
		return nil
	}
	return n.deletePod(ctx, n.o.holdName(node))
}

// deletePod ends a pod of ours at once; one that is not there is no error.
func (n *Nodes) deletePod(ctx context.Context, name string) error {
	return n.o.deletePod(ctx, n.watch, name)
}

func (o *Options) deletePod(ctx context.Context, w *Watch, name string) error {
	now := int64(0)
	err := o.Client.CoreV1().Pods(o.Namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil && !apierrors.IsNotFound(err) {
		return fault("delete", "pods", err)
	}
	w.pods.deleted(o.Namespace + "/" + name)
	return nil
}
