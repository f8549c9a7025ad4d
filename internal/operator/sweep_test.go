package operator

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/kube"
)

// TestSweep: what carries a fleet's labels goes, and nothing else.
func TestSweep(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	labelled := func(name, owner, fleet string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Labels: map[string]string{kube.LabelOwner: owner, kube.LabelFleet: fleet}}
	}
	for name, meta := range map[string]metav1.ObjectMeta{
		"ours": labelled("ours", kube.Owner, "one"), "other": labelled("other", kube.Owner, "two"), "foreign": labelled("foreign", "somebody", "one"),
	} {
		_, err := c.Client.CoreV1().Pods(ns).Create(t.Context(), &corev1.Pod{
			ObjectMeta: meta, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Client.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for range 2 { // again changes nothing
		if err := Sweep(t.Context(), c.Dynamic, Key{ns, "one"}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "what is the fleet's is gone", 10*time.Second, func(ctx context.Context) bool {
		_, err := c.Client.CoreV1().Pods(ns).Get(ctx, "ours", metav1.GetOptions{})
		_, perr := c.Client.NetworkingV1().NetworkPolicies(ns).Get(ctx, "ours", metav1.GetOptions{})
		return apierrors.IsNotFound(err) && apierrors.IsNotFound(perr)
	})
	for _, name := range []string{"other", "foreign"} {
		if _, err := c.Client.CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("pod %s: %v", name, err)
		}
		if _, err := c.Client.NetworkingV1().NetworkPolicies(ns).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("policy %s: %v", name, err)
		}
	}
}
