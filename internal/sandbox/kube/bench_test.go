package kube_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

// BenchmarkClaim is the time from Claim to the runner's acceptance on a warm
// pool, with real runners in this process: what remains beside it in a cluster
// is the network.
func BenchmarkClaim(b *testing.B) {
	c := newCluster(b)
	s := c.open(b)
	defer func() { _ = s.Close() }()
	const batch = 50
	var took []time.Duration
	for len(took) < b.N {
		b.StopTimer()
		ids := make([]fleet.SandboxID, min(batch, b.N-len(took)))
		var wg sync.WaitGroup
		for i := range ids {
			spec := specOf()
			ids[i] = spec.ID
			wg.Go(func() {
				if _, err := s.Create(context.Background(), spec); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		b.StartTimer()
		for _, id := range ids {
			began := time.Now()
			a := fleet.Assignment{Task: fleet.NewTaskID(began), Fence: 1, Command: []string{"true"}}
			if err := s.Claim(context.Background(), id, a, sandboxtest.NewRecorder()); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		b.StopTimer()
		for _, id := range ids {
			if err := s.Destroy(context.Background(), id); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// TestASteadyFleetWritesNothing watches 10,000 pods that change now and then.
func TestASteadyFleetWritesNothing(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 500
	}
	var pods []runtime.Object
	labels := map[string]string{"app.kubernetes.io/managed-by": "muster", "muster.dev/fleet": "coders", "muster.dev/role": "sandbox"}
	for i := range n {
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(fleet.NewSandboxID(time.Now())), Namespace: namespace,
			UID: types.UID(fmt.Sprint(i)), Labels: labels}, Status: corev1.PodStatus{Phase: corev1.PodRunning}})
	}
	c := newCluster(t, pods...)
	c.client.ClearActions()
	s := c.opened(t)
	ids, err := s.List(t.Context())
	if err != nil || len(ids) != n {
		t.Fatalf("%d sandboxes, %v", len(ids), err)
	}
	for _, id := range ids[:100] {
		c.status(c.pod(t, id), func(p *corev1.Pod) { p.Status.Message = "still running" })
	}
	eventually(t, "the watch began", func() bool {
		for _, a := range c.client.Actions() {
			if a.GetVerb() == "watch" {
				return true
			}
		}
		return false
	})
	for _, a := range c.client.Actions() {
		if v := a.GetVerb(); a.GetResource().Resource == "pods" && a.GetSubresource() == "" && v != "list" && v != "watch" && v != "get" {
			t.Errorf("%s %s", v, a.GetResource().Resource)
		}
	}
}
