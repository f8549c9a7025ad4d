package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/kube"
)

// buffers is the resource that Cluster Autoscaler obeys
// (cluster-autoscaler/apis/capacitybuffer).
var buffers = schema.GroupVersionResource{Group: "autoscaling.x-k8s.io", Version: "v1beta1", Resource: "capacitybuffers"}

// annotationBoots is what a buffer was asked for and has not given yet.
const annotationBoots = "muster.dev/boots"

// buffer asks with the replicas of a CapacityBuffer. A replica is a node's worth
// that fits on no node with a hold, so that the replicas are exactly the nodes
// that are still to come: one that came is held, and its replica taken back
// before the hold is put there, so that no other comes in its place.
type buffer struct {
	o    *Options
	name string
}

func newBuffer(o *Options) *buffer {
	return &buffer{o: o, name: o.name("nodes", "buffer")}
}

// served tells whether the cluster knows CapacityBuffers at all.
func (s *buffer) served(context.Context) (bool, error) {
	l, err := s.o.Client.Discovery().ServerResourcesForGroupVersion(buffers.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fault("discover", buffers.GroupVersion().String(), err)
	}
	return slices.ContainsFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == buffers.Resource }), nil
}

// asked is a boot as it is kept on the buffer.
type asked struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// load implements source.
func (s *buffer) load(ctx context.Context, _ int) ([]boot, error) {
	b, err := s.o.Dynamic.Resource(buffers).Namespace(s.o.Namespace).Get(ctx, s.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fault("get", buffers.Resource, err)
	}
	var kept []asked
	if text := b.GetAnnotations()[annotationBoots]; text != "" {
		if err := json.Unmarshal([]byte(text), &kept); err != nil {
			s.o.Logger.Warn("what was asked for before cannot be read; the plan asks anew", "buffer", s.name, "error", err)
		}
	}
	out := make([]boot, len(kept))
	for i, k := range kept {
		out[i] = boot{id: k.ID, at: k.At}
	}
	// Replicas that nobody knows of would bring nodes for nobody.
	if n, _, _ := unstructured.NestedInt64(b.Object, "spec", "replicas"); n != int64(len(out)) {
		return out, s.write(ctx, out)
	}
	return out, nil
}

// ask implements source.
func (s *buffer) ask(ctx context.Context, more int, boots []boot) ([]boot, error) {
	want := slices.Clone(boots)
	now := s.o.Clock().UTC()
	for range more {
		want = append(want, boot{id: s.o.seatName(), at: now})
	}
	if err := s.write(ctx, wanted(want)); err != nil {
		return boots, err
	}
	return want, nil
}

// wanted are the boots for which nothing has come.
func wanted(boots []boot) []boot {
	return slices.DeleteFunc(slices.Clone(boots), func(b boot) bool { return b.node != "" })
}

func (s *buffer) came(ctx context.Context, _, left []boot) error {
	return s.write(ctx, wanted(left))
}

func (s *buffer) withdraw(ctx context.Context, _, left []boot) error {
	return s.write(ctx, wanted(left))
}

func (s *buffer) release(context.Context, string) error { return nil }
func (s *buffer) reusable() bool                        { return true }
func (s *buffer) places() bool                          { return false }
func (s *buffer) placed(string) string                  { return "" }

// write makes the buffer ask for these.
func (s *buffer) write(ctx context.Context, boots []boot) error {
	kept := make([]asked, len(boots))
	for i, b := range boots {
		kept[i] = asked{b.id, b.at}
	}
	note, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("encode what is asked for: %w", err)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{annotationBoots: string(note)}},
		"spec":     map[string]any{"replicas": len(boots)},
	})
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	c := s.o.Dynamic.Resource(buffers).Namespace(s.o.Namespace)
	_, err = c.Patch(ctx, s.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: kube.Owner})
	if !apierrors.IsNotFound(err) {
		return fault("patch", buffers.Resource, err)
	}
	if err := s.template(ctx); err != nil {
		return err
	}
	_, err = c.Create(ctx, s.object(len(boots), string(note)), metav1.CreateOptions{FieldManager: kube.Owner})
	return fault("create", buffers.Resource, err)
}

func (s *buffer) object(replicas int, note string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{"podTemplateRef": map[string]any{"name": s.name}, "replicas": int64(replicas)},
	}}
	u.SetAPIVersion(buffers.GroupVersion().String())
	u.SetKind("CapacityBuffer")
	u.SetName(s.name)
	u.SetLabels(s.o.labels())
	u.SetAnnotations(map[string]string{annotationBoots: note})
	return u
}

// template writes what one replica asks for.
func (s *buffer) template(ctx context.Context) error {
	t := &corev1.PodTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: s.name, Namespace: s.o.Namespace, Labels: s.o.labels()},
		Template:   corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: s.o.labels()}, Spec: s.o.seatSpec()},
	}
	c := s.o.Client.CoreV1().PodTemplates(s.o.Namespace)
	_, err := c.Create(ctx, t, metav1.CreateOptions{FieldManager: kube.Owner})
	if !apierrors.IsAlreadyExists(err) {
		return fault("create", "podtemplates", err)
	}
	there, err := c.Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return fault("get", "podtemplates", err)
	}
	there.Template, there.Labels = t.Template, t.Labels
	_, err = c.Update(ctx, there, metav1.UpdateOptions{FieldManager: kube.Owner})
	return fault("update", "podtemplates", err)
}

// refused implements source. The buffer is spoken of as a whole: what it does
// not get, none of its replicas gets.
func (s *buffer) refused(ctx context.Context, waiting []boot) (map[string]string, error) {
	now := s.o.Clock()
	late := slices.DeleteFunc(slices.Clone(waiting), func(b boot) bool { return now.Sub(b.at) < grace })
	if len(late) == 0 {
		return nil, nil
	}
	said, err := verdicts(ctx, s.o, "CapacityBuffer", []string{s.name})
	if err != nil || said[s.name] == "" {
		return nil, err
	}
	why := map[string]string{}
	for _, b := range late {
		why[b.id] = "CapacityBuffer " + s.name + " gets no node: " + said[s.name]
	}
	return why, nil
}
