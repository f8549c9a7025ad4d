package kubetest

import (
	"context"
	_ "embed"
	"encoding/json"
	"slices"
	"sort"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// bufferCRD is the API as autoscaling.x-k8s.io/v1beta1 is documented.
//
//go:embed capacitybuffer.yaml
var bufferCRD []byte

var bufferResource = schema.GroupVersionResource{Group: "autoscaling.x-k8s.io", Version: "v1beta1", Resource: "capacitybuffers"}

const (
	bufferCRDName    = "capacitybuffers.autoscaling.x-k8s.io"
	activeCapacity   = "buffer.x-k8s.io/active-capacity"
	conditionReady   = "ReadyForProvisioning"
	conditionWorking = "Provisioning"
)

// buffer is a CapacityBuffer, as far as it is obeyed.
type buffer struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ProvisioningStrategy string                       `json:"provisioningStrategy"`
		PodTemplateRef       *corev1.LocalObjectReference `json:"podTemplateRef"`
		Replicas             *int32                       `json:"replicas"`
		Limits               corev1.ResourceList          `json:"limits"`
	} `json:"spec"`
	Status bufferStatus `json:"status"`

	seen  bufferStatus
	chunk *corev1.Pod // nil: it cannot be provided for
}

type bufferStatus struct {
	PodTemplateRef        *corev1.LocalObjectReference `json:"podTemplateRef,omitempty"`
	PodTemplateGeneration *int64                       `json:"podTemplateGeneration,omitempty"`
	Replicas              *int32                       `json:"replicas,omitempty"`
	ProvisioningStrategy  *string                      `json:"provisioningStrategy,omitempty"`
	Conditions            []metav1.Condition           `json:"conditions,omitempty"`
}

// serveBuffers makes the API of CapacityBuffers while a test needs it.
func (c *Cluster) serveBuffers(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	c.crds[bufferCRDName]++
	c.mu.Unlock()
	c.InstallCRDs(t, bufferCRD)
	t.Cleanup(func() {
		c.mu.Lock()
		c.crds[bufferCRDName]--
		last := c.crds[bufferCRDName] == 0
		c.mu.Unlock()
		if !last {
			return
		}
		// Adapters choose by what is served, and the next test may want none.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Dynamic.Resource(crdResource).Delete(ctx, bufferCRDName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove the API of CapacityBuffers: %v", err)
		}
	})
}

// buffers are the CapacityBuffers, where a group obeys them.
func (c *Cluster) buffers(ctx context.Context) []*buffer {
	c.nodes.mu.Lock()
	obeyed := slices.ContainsFunc(c.nodes.groups, func(g *NodeGroup) bool { return g.o.Buffers })
	c.nodes.mu.Unlock()
	if !obeyed {
		return nil
	}
	list, err := c.Dynamic.Resource(bufferResource).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil // the next scan looks again
	}
	var out []*buffer
	for i := range list.Items {
		b := &buffer{}
		if err := json.Unmarshal(mustJSON(&list.Items[i]), b); err != nil {
			continue // the API server has checked it against the CRD
		}
		if b.DeletionTimestamp != nil || b.Spec.ProvisioningStrategy != activeCapacity {
			continue
		}
		b.seen = *b.Status.deepCopy()
		b.resolve(ctx, c)
		out = append(out, b)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].UID < out[j].UID })
	return out
}

// resolve finds the template and how many chunks of it there are to be.
func (b *buffer) resolve(ctx context.Context, c *Cluster) {
	strategy := activeCapacity
	b.Status.ProvisioningStrategy = &strategy
	if b.Spec.PodTemplateRef == nil {
		b.condition(conditionReady, false, "error", "this autoscaler knows podTemplateRef only")
		return
	}
	t, err := c.Client.CoreV1().PodTemplates(b.Namespace).Get(ctx, b.Spec.PodTemplateRef.Name, metav1.GetOptions{})
	if err != nil {
		b.condition(conditionReady, false, "error", err.Error())
		return
	}
	b.chunk = &corev1.Pod{ObjectMeta: *t.Template.ObjectMeta.DeepCopy(), Spec: *t.Template.Spec.DeepCopy()}
	b.chunk.Namespace = b.Namespace
	n := b.count()
	b.Status.PodTemplateRef, b.Status.PodTemplateGeneration, b.Status.Replicas = b.Spec.PodTemplateRef, &t.Generation, &n
	b.condition(conditionReady, true, "attributesSetSuccessfully", "ready")
}

// count is how many chunks there are to be: replicas, but not beyond limits.
func (b *buffer) count() int32 {
	n := int64(1 << 30)
	if b.Spec.Replicas != nil {
		n = int64(*b.Spec.Replicas)
	}
	cpu, mem := requests(b.chunk)
	if limit, ok := b.Spec.Limits[corev1.ResourceCPU]; ok && cpu > 0 {
		n = min(n, limit.MilliValue()/cpu)
	}
	if limit, ok := b.Spec.Limits[corev1.ResourceMemory]; ok && mem > 0 {
		n = min(n, limit.Value()/mem)
	}
	return int32(min(n, 1000)) //nolint:gosec // bounded
}

// provide keeps room for each chunk: what does not fit brings nodes.
func (b *buffer) provide(v *view, groups []*NodeGroup) {
	if b.chunk == nil {
		b.condition(conditionWorking, false, "NotReadyForProvisioning", "the buffer is not ready for provisioning")
		return
	}
	there := 0
	for range *b.Status.Replicas {
		if v.place(b.chunk) {
			there++
			continue
		}
		asked := slices.ContainsFunc(groups, func(g *NodeGroup) bool { return g.o.Buffers && g.request(v, b.chunk) })
		if !asked {
			break // nor will there be room for the rest
		}
	}
	if there == int(*b.Status.Replicas) {
		b.condition(conditionWorking, true, "FitsExistingCapacity", "the capacity is there, or on its way")
	} else {
		b.condition(conditionWorking, true, "RequiresNewCapacity", "nodes are requested")
	}
}

func (b *buffer) condition(kind string, holds bool, reason, message string) {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&b.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: b.Generation})
}

// report writes the status where it has changed.
func (b *buffer) report(ctx context.Context, c *Cluster) {
	before, after := mustJSON(b.seen), mustJSON(b.Status)
	if string(before) == string(after) {
		return
	}
	var status map[string]any
	if err := json.Unmarshal(after, &status); err != nil {
		panic(err) // just encoded
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetAPIVersion(bufferResource.GroupVersion().String())
	u.SetKind("CapacityBuffer")
	u.SetName(b.Name)
	u.SetNamespace(b.Namespace)
	u.SetResourceVersion(b.ResourceVersion)
	// Who changed it meanwhile is right; the next scan says so.
	_, _ = c.Dynamic.Resource(bufferResource).Namespace(b.Namespace).UpdateStatus(ctx, u, metav1.UpdateOptions{})
}

func (s *bufferStatus) deepCopy() *bufferStatus {
	out := *s
	out.Conditions = slices.Clone(s.Conditions)
	return &out
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a struct of plain fields
	}
	return b
}
