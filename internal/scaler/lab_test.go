package scaler_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
	"muster.dev/muster/internal/scaler"
	kubetest "muster.dev/muster/test/kube"
)

// lab is a namespace of a real cluster with a scaler in it.
type lab struct {
	t  testing.TB
	c  *kubetest.Cluster
	ns string
	s  *scaler.Scaler

	mu sync.Mutex
	n  int
}

// pool is the label of the nodes of these tests.
const pool = "scaler-test"

func newLab(t testing.TB, target scaler.Target, with func(*scaler.Options, *lab)) *lab {
	t.Helper()
	c := kubetest.Start(t)
	l := &lab{t: t, c: c, ns: c.Namespace(t), n: 2}
	o := scaler.Options{
		Config: c.Config, Namespace: l.ns, Fleet: "f", Target: target, Settle: -1, Resync: 500 * time.Millisecond,
		Targets: func() fleet.Targets {
			l.mu.Lock()
			defer l.mu.Unlock()
			return fleet.Targets{At: time.Now(), Pools: []fleet.PoolTargets{{Pool: "p", Desired: l.n}}}
		},
	}
	if with != nil {
		with(&o, l)
	}
	s, err := scaler.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l.s = s
	return l
}

// run starts the scaler; it ends with the test.
func (l *lab) run() {
	ctx, stop := context.WithCancel(l.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.s.Run(ctx) }()
	l.t.Cleanup(func() { stop(); <-done })
}

func (l *lab) want(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n = n
}

// within polls until a condition holds.
func (l *lab) within(d time.Duration, what string, f func() bool) {
	l.t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			l.t.Fatalf("not within %s: %s; status %+v", d, what, l.s.Status())
		case <-tick.C:
		}
	}
}

// template is of pods that kwok runs on nodes of these tests.
func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "agents"}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"pool": pool},
			Containers: []corev1.Container{{Name: "agent", Image: "agent", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")},
			}}},
		},
	}
}

func (l *lab) nodes() {
	l.c.NodeGroup(l.t, kubetest.GroupOptions{Name: pool, Labels: map[string]string{"pool": pool}, MilliCPU: 8000, Memory: 32 << 30, Pods: 110, Min: 2, Max: 2})
}

func (l *lab) deployment(replicas int32) {
	l.t.Helper()
	_, err := l.c.Client.AppsV1().Deployments(l.ns).Create(l.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "workers"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Template: template(),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "agents"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
}

// pods are those that are there to stay, with whether they are ready.
func (l *lab) pods() map[string]bool {
	l.t.Helper()
	list, err := l.c.Client.CoreV1().Pods(l.ns).List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]bool{}
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp == nil {
			out[p.Name] = false
			for _, c := range p.Status.Conditions {
				out[p.Name] = out[p.Name] || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}
		}
	}
	return out
}

func (l *lab) ready(n int) func() bool {
	return func() bool {
		pods, up := l.pods(), 0
		for _, ready := range pods {
			if ready {
				up++
			}
		}
		return up == n && len(pods) == n
	}
}

func (l *lab) say(pod, busy string) {
	l.t.Helper()
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{scaler.AnnotationBusy: busy}}})
	if _, err := l.c.Client.CoreV1().Pods(l.ns).Patch(l.t.Context(), pod, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

// event tells whether an event says something.
func (l *lab) event(says string) func() bool {
	return func() bool {
		list, err := l.c.Client.CoreV1().Events(l.ns).List(l.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for i := range list.Items {
			if strings.Contains(list.Items[i].Message, says) {
				return true
			}
		}
		return false
	}
}

var deployment = scaler.Target{APIVersion: "apps/v1", Kind: "Deployment", Name: "workers"}

// unmarked says that no pod has a cost or a mark.
func (l *lab) unmarked() bool {
	list, err := l.c.Client.CoreV1().Pods(l.ns).List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		return false
	}
	for i := range list.Items {
		a := list.Items[i].Annotations
		if list.Items[i].DeletionTimestamp == nil && (a[scaler.AnnotationLeaving] != "" || a[kube.AnnotationDeletionCost] != "") {
			return false
		}
	}
	return true
}
