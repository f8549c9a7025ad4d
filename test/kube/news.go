package kubetest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// news are the events of pods about which there is something new to say; the
// caller holds mu.
func (a *autoscaler) news(waiting []*corev1.Pod, told map[types.UID]string) []*corev1.Event {
	var out []*corev1.Event
	for _, p := range waiting {
		reason := told[p.UID]
		if reason == "" || a.told[p.UID] == reason {
			continue
		}
		a.told[p.UID] = reason
		e := &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{GenerateName: p.Name + ".", Namespace: p.Namespace},
			InvolvedObject: corev1.ObjectReference{
				Kind: "Pod", APIVersion: "v1", Namespace: p.Namespace, Name: p.Name, UID: p.UID,
			},
			Reason: reason, Type: corev1.EventTypeNormal, Source: corev1.EventSource{Component: "cluster-autoscaler"},
			Message:        "pod triggered scale-up",
			FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(), Count: 1,
		}
		if reason == "NotTriggerScaleUp" {
			e.Message = "pod didn't trigger scale-up: max node group size reached, or no node group fits"
		}
		out = append(out, e)
	}
	return out
}

// report writes the events, as Cluster Autoscaler does; one that is refused,
// since its namespace is going, is nobody's loss.
func (c *Cluster) report(ctx context.Context, news []*corev1.Event) {
	for _, e := range news {
		_, _ = c.Client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	}
}
