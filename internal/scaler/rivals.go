package scaler

import (
	"cmp"
	"context"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"muster.dev/muster/internal/kube"
)

// rivalsEvery is how often other autoscalers are looked for.
const rivalsEvery = 30 * time.Second

// look finds out, now and then, whether an autoscaler has the same target. KEDA
// works through a HorizontalPodAutoscaler, so it is seen, too. While it is not
// known whether there is one, nothing is written.
func (s *Scaler) look(ctx context.Context, now time.Time) error {
	every := rivalsEvery
	if s.rival != "" {
		every = s.o.Resync // to go on soon after it has gone
	}
	if !s.checked.IsZero() && now.Sub(s.checked) < every {
		return nil
	}
	list, err := s.c.kube.AutoscalingV2().HorizontalPodAutoscalers(s.o.Namespace).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return call{"list", schema.GroupResource{Group: "autoscaling", Resource: "horizontalpodautoscalers"}, "", &s.o}.wrap(err)
	}
	s.checked, s.rival = now, ""
	for i := range list.Items {
		if h := &list.Items[i]; drives(h, s.o.Target) {
			s.rival = nameOf(h)
		}
	}
	return nil
}

func drives(h *autoscalingv2.HorizontalPodAutoscaler, t Target) bool {
	ref := h.Spec.ScaleTargetRef
	return ref.Kind == t.Kind && ref.Name == t.Name && groupOf(ref.APIVersion) == groupOf(t.APIVersion)
}

func nameOf(h *autoscalingv2.HorizontalPodAutoscaler) string {
	for _, r := range h.OwnerReferences {
		if r.Kind == "ScaledObject" {
			return fmt.Sprintf("HorizontalPodAutoscaler %s of KEDA's ScaledObject %s", h.Name, r.Name)
		}
	}
	return "HorizontalPodAutoscaler " + h.Name
}

// groupOf is the API group: an object may be named by any of its versions.
func groupOf(apiVersion string) string {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return apiVersion
	}
	return gv.Group
}

// foreign tells of replicas that somebody else has written since we did. They
// are brought back to the plan; a person who wants them to stay has to say so
// in the fleet.
func (s *Scaler) foreign(ctx context.Context, sc *scaleObject) {
	have := int(sc.Spec.Replicas)
	if s.wrote < 0 || have == s.wrote {
		return
	}
	who := "somebody"
	if name := s.c.writer(ctx, &s.o); name != "" {
		who = fmt.Sprintf("%q", name)
	}
	s.emit(ctx, sc, event{corev1.EventTypeWarning, "ReplicasChanged", fmt.Sprintf("%s set the replicas of %s to %d, where Muster had written %d; fleet %s brings them back to its plan", who, s.o.Target, have, s.wrote, s.o.Fleet)})
	s.wrote = have
}

// event is a Kubernetes event on the target.
type event struct{ kind, reason, message string }

// tag is when an event was told last.
type tag struct {
	at      time.Time
	message string
}

// eventEvery is how often the same event is told again.
const eventEvery = 10 * time.Minute

// emit records an event on the target, the same one only now and then. An event
// that cannot be written is logged: it is no reason not to scale.
func (s *Scaler) emit(ctx context.Context, sc *scaleObject, e event) {
	now := s.o.Clock()
	if t, ok := s.told[e.reason]; ok && t.message == e.message && now.Sub(t.at) < eventEvery {
		return
	}
	s.told[e.reason] = tag{now, e.message}
	at := metav1.NewTime(now)
	// The API server takes events on what has no namespace in "default" only.
	_, of, _ := s.c.where(&s.o) // known: sc was read from there
	in := cmp.Or(of, metav1.NamespaceDefault)
	_, err := s.c.kube.CoreV1().Events(in).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: s.o.Target.Name + ".", Namespace: in, Labels: map[string]string{kube.LabelOwner: kube.Owner}},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: s.o.Target.APIVersion, Kind: s.o.Target.Kind, Namespace: of, Name: s.o.Target.Name, UID: sc.UID,
		},
		Reason: e.reason, Message: e.message, Type: e.kind, Count: 1,
		Source:         corev1.EventSource{Component: kube.Owner},
		FirstTimestamp: at, LastTimestamp: at,
	}, metav1.CreateOptions{})
	s.o.Logger.Warn(e.message, "target", s.o.Target.String(), "event", e.reason)
	if err != nil {
		s.o.Logger.Warn("the event could not be recorded", "error", call{"create", schema.GroupResource{Resource: "events"}, "", &s.o}.wrap(err))
	}
}
