package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// Karpenter's resources (karpenter pkg/apis/v1).
var (
	nodePools  = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}
	nodeClaims = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
)

const (
	labelNodePool = "karpenter.sh/nodepool"
	// Of two NodeClaims that may go, the one with the higher number goes first
	// (karpenter pkg/controllers/static/deprovisioning).
	annotationGoFirst = "karpenter.sh/deprovisioning-priority"
)

// pool asks with the replicas of a static NodePool. Of nodes that may go,
// Karpenter takes those that are not launched yet first, then those that carry
// nothing, and a hold is something: so it takes the node that we gave back. It
// keeps the number by itself: a node that is lost is replaced unasked.
type pool struct {
	o     *Options
	heard map[string]time.Time // the last word on a NodeClaim that was counted
}

func newPool(o *Options) *pool { return &pool{o: o, heard: map[string]time.Time{}} }

// load implements source. When a node was asked for is not kept anywhere; it is
// taken from the NodeClaims that have no node yet.
func (s *pool) load(ctx context.Context, there int) ([]boot, error) {
	replicas, err := s.resize(ctx, 0)
	if err != nil {
		return nil, err
	}
	claims, err := s.claims(ctx)
	if err != nil {
		return nil, err
	}
	var since []time.Time
	for i := range claims {
		if node, _, _ := unstructured.NestedString(claims[i].Object, "status", "nodeName"); node == "" {
			since = append(since, claims[i].GetCreationTimestamp().Time)
		}
	}
	slices.SortFunc(since, time.Time.Compare)
	var out []boot
	for i := range max(0, replicas-there) {
		b := boot{id: s.o.seatName(), at: s.o.Clock()}
		if i < len(since) {
			b.at = since[i]
		}
		out = append(out, b)
	}
	return out, nil
}

// claims returns the NodeClaims of the pool; none where they may not be read.
func (s *pool) claims(ctx context.Context) ([]unstructured.Unstructured, error) {
	l, err := s.o.Dynamic.Resource(nodeClaims).List(ctx, metav1.ListOptions{LabelSelector: labelNodePool + "=" + s.o.NodePool})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fault("list", nodeClaims.Resource, err)
	}
	return l.Items, nil
}

// resize changes the replicas and returns what they are then.
func (s *pool) resize(ctx context.Context, by int) (int, error) {
	c := s.o.Dynamic.Resource(nodePools)
	var after int64
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		u, err := c.Get(ctx, s.o.NodePool, metav1.GetOptions{}, "scale")
		if err != nil {
			return err
		}
		now, _, err := unstructured.NestedInt64(u.Object, "spec", "replicas")
		if err != nil {
			return fmt.Errorf("read the scale of NodePool %s: %w: %w", s.o.NodePool, fleet.ErrInvalid, err)
		}
		if after = max(0, now+int64(by)); after == now {
			return nil
		}
		if err := unstructured.SetNestedField(u.Object, after, "spec", "replicas"); err != nil {
			return fmt.Errorf("write the scale of NodePool %s: %w", s.o.NodePool, err)
		}
		_, err = c.Update(ctx, u, metav1.UpdateOptions{FieldManager: kube.Owner}, "scale")
		return err
	})
	if apierrors.IsNotFound(err) {
		return 0, &fleet.FieldError{Field: "nodes.nodePool", Wrong: "there is no NodePool " + s.o.NodePool + " with replicas", Right: "the name of a static one"}
	}
	return int(after), fault("update", "nodepools/scale", err)
}

// ask implements source.
func (s *pool) ask(ctx context.Context, more int, boots []boot) ([]boot, error) {
	if _, err := s.resize(ctx, more); err != nil {
		return boots, err
	}
	for range more {
		boots = append(boots, boot{id: s.o.seatName(), at: s.o.Clock()})
	}
	return boots, nil
}

func (s *pool) came(context.Context, []boot, []boot) error { return nil }

func (s *pool) withdraw(ctx context.Context, gone, _ []boot) error {
	_, err := s.resize(ctx, -len(gone))
	return err
}

// release implements source. While a node is being launched Karpenter would
// take that one instead.
func (s *pool) release(ctx context.Context, node string) error {
	claims, err := s.claims(ctx)
	if err != nil {
		return err
	}
	for i := range claims {
		u := &claims[i]
		if id, _, _ := unstructured.NestedString(u.Object, "status", "providerID"); id == "" && u.GetDeletionTimestamp() == nil {
			return fmt.Errorf("NodeClaim %s is being launched and would go in its place: %w", u.GetName(), fleet.ErrConflict)
		}
	}
	for i := range claims {
		if name, _, _ := unstructured.NestedString(claims[i].Object, "status", "nodeName"); name == node {
			if err := s.goFirst(ctx, claims[i].GetName()); err != nil {
				return err
			}
		}
	}
	_, err = s.resize(ctx, -1)
	return err
}

func (s *pool) goFirst(ctx context.Context, claim string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotationGoFirst: "100"}}})
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	_, err = s.o.Dynamic.Resource(nodeClaims).Patch(ctx, claim, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: kube.Owner})
	if err != nil && !apierrors.IsNotFound(err) {
		return fault("patch", nodeClaims.Resource, err)
	}
	return nil
}

// reusable implements source: a node that was given back is on its way out at
// once.
func (s *pool) reusable() bool       { return false }
func (s *pool) places() bool         { return false }
func (s *pool) placed(string) string { return "" }

// refused implements source. Which NodeClaim is for which boot cannot be told,
// and need not be: each that got no machine is one boot less.
func (s *pool) refused(ctx context.Context, waiting []boot) (map[string]string, error) {
	if len(waiting) == 0 {
		clear(s.heard)
		return nil, nil
	}
	l, err := s.o.Client.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: "reason=" + reasonCapacity + ",involvedObject.kind=NodeClaim",
	})
	if err != nil {
		return nil, fault("list", "events", err)
	}
	why := map[string]string{}
	left := waiting
	for i := range l.Items {
		e := &l.Items[i]
		at, claim := saidAt(e), e.InvolvedObject.Name
		ours := e.Reason == reasonCapacity && e.InvolvedObject.Kind == "NodeClaim" && len(claim) > len(s.o.NodePool) && claim[:len(s.o.NodePool)+1] == s.o.NodePool+"-"
		if !ours || len(left) == 0 || at.Before(left[0].at.Add(-skew)) || !at.After(s.heard[claim]) {
			continue
		}
		s.heard[claim] = at
		why[left[0].id] = "NodePool " + s.o.NodePool + " gets no node: " + e.Message
		left = left[1:]
	}
	return why, nil
}
