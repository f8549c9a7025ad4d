package kube

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"muster.dev/muster/internal/fleet"
)

// BenchmarkList reads 1,000 nodes with 10,000 sandboxes, where nothing has
// changed since the last reading, where sandboxes have, and where a node has.
func BenchmarkList(b *testing.B) {
	o := Options{
		Client: fake.NewClientset(), Fleet: "coding", Namespace: ns, Selector: selector, Image: "wait",
		Slot: fleet.Resources{MilliCPU: 900, MemoryBytes: 3 << 30}, Headroom: HeadroomPlaceholder,
	}
	n, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	var nodes, pods []any
	for i := range 1000 {
		name := fmt.Sprintf("machine-%04d", i)
		x := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: selector}}
		setReady(x, true)
		nodes = append(nodes, x)
		h := n.o.holdPod(name, &hold{boot: name, requested: time.Now(), ready: time.Now()})
		pods = append(pods, h)
		for k := range 10 {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d-%d", i, k), Namespace: ns}, Spec: corev1.PodSpec{NodeName: name}}
			sandboxOf("coding")(p)
			pods = append(pods, p)
		}
	}
	if err := n.watch.nodes.Replace(nodes, ""); err != nil {
		b.Fatal(err)
	}
	if err := n.watch.pods.Replace(pods, ""); err != nil {
		b.Fatal(err)
	}
	n.source, n.unread = &placeholders{o: &n.o, w: n.watch}, nil
	for name, change := range map[string]func(){"quiet": func() {}, "sandboxes": func() { n.watch.boxed("coding") }, "nodes": n.watch.changed} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				change()
				if l, err := n.List(b.Context()); err != nil || len(l) != 1000 {
					b.Fatal(len(l), err)
				}
			}
		})
	}
}
