package kube

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// pooledPod is a pod of a pool, n seconds old at the epoch.
func pooledPod(n int, change func(*corev1.Pod)) *corev1.Pod {
	yes := true
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("pod-%d", n), UID: types.UID(fmt.Sprintf("uid-%d", n)), CreationTimestamp: metav1.Unix(int64(n), 0),
		Labels: map[string]string{labelPooled: "hash"}, Annotations: map[string]string{annotationWarmPool: "pool"},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Sandbox", Name: fmt.Sprintf("pod-%d", n), UID: types.UID(fmt.Sprintf("owner-%d", n)), Controller: &yes}},
	}}
	if change != nil {
		change(pod)
	}
	return pod
}

// newTestWarm is a warm that writes nothing.
func newTestWarm(now *time.Time) *warm {
	s := &Sandboxes{o: Options{Clock: func() time.Time { return *now }}}
	return &warm{s: s, kick: make(chan struct{}, 1), pools: map[string]*pool{}, claims: map[string]claim{}}
}

func TestPoolSizes(t *testing.T) {
	now := time.Unix(1000, 0)
	w := newTestWarm(&now)
	held := func(p *corev1.Pod) { p.Labels[kube.LabelSandbox] = "s1" }
	for _, pod := range []*corev1.Pod{
		pooledPod(1, held),
		pooledPod(2, held), // its claim was made just now
		pooledPod(3, held), // its claim has not been answered for long
		pooledPod(4, nil),  // free
		pooledPod(5, func(p *corev1.Pod) { held(p); delete(p.Labels, labelPooled) }),                 // its claim's already
		pooledPod(6, func(p *corev1.Pod) { held(p); p.DeletionTimestamp = &metav1.Time{Time: now} }), // going
	} {
		w.saw(pod, false)
	}
	w.claims["pod-2"] = claim{at: now.Add(-adoption / 2)}
	w.claims["pod-3"] = claim{at: now.Add(-2 * adoption)}
	p := w.pools["pool"]
	p.waiting = []*waiter{{}, {}}
	if need, keep := w.sizes(p, now); need != 4 || keep != 5 {
		t.Errorf("need %d, keep %d; want 4 and 5", need, keep)
	}
}

// TestPodsOnceHeldAreNotGivenAgain: the sandbox of a pod that was lost makes
// another pod; nobody gets it.
func TestPodsOnceHeldAreNotGivenAgain(t *testing.T) {
	now := time.Unix(0, 0)
	w := newTestWarm(&now)
	lost := pooledPod(1, func(p *corev1.Pod) { p.Labels[kube.LabelSandbox] = "s1" })
	w.saw(lost, false)
	w.saw(lost, true)
	w.saw(pooledPod(1, func(p *corev1.Pod) { p.UID = "uid-again" }), false)
	p := w.pools["pool"]
	wt := &waiter{id: "s2", got: make(chan *corev1.Pod, 1)}
	p.waiting = append(p.waiting, wt)
	w.saw(pooledPod(2, nil), false)
	if pod := <-wt.got; pod.Name != "pod-2" {
		t.Errorf("%s was given", pod.Name)
	}
	if need, _ := w.sizes(p, now); need != 1 {
		t.Errorf("need %d", need)
	}
}

// TestPodsOfRemovedSandboxesAreNotGiven: the controller of a sandbox that was
// removed by name has not heard of it yet, and makes another pod for it.
func TestPodsOfRemovedSandboxesAreNotGiven(t *testing.T) {
	now := time.Unix(0, 0)
	w := newTestWarm(&now)
	removed := pooledPod(1, func(p *corev1.Pod) { p.Labels[kube.LabelSandbox] = "s1" })
	w.saw(removed, false)
	w.left(removed)
	w.saw(removed, true)
	w.saw(pooledPod(1, func(p *corev1.Pod) { p.UID = "uid-again" }), false)
	p := w.pools["pool"]
	if free := p.free(); len(free) > 0 {
		t.Errorf("%s is there to be given", free[0].pod.Name)
	}
	if p.ended != 1 {
		t.Errorf("the pool may shrink by %d", p.ended)
	}
	for n := range 200 { // they are forgotten in the end
		now = now.Add(forgotten / 50)
		p.spend(types.UID(fmt.Sprint("other-", n)), now)
	}
	if n := len(p.spent); n > 130 || p.spent["owner-1"].IsZero() {
		t.Errorf("%d are remembered", n)
	}
}

// TestPodsAreGivenOnce: whatever comes and goes in whatever order, a pod is
// given to one sandbox, the oldest first, and the pool is to have what is held
// and waited for.
func TestPodsAreGivenOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(0, 0)
		w := newTestWarm(&now)
		p := w.found("pool", 0)
		given := map[types.UID]fleet.SandboxID{}
		var waiters []*waiter
		next, held := 0, 0
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				next++
				w.saw(pooledPod(next, nil), false)
			case 1:
				if next > 0 { // told again, as watches do
					n := rapid.IntRange(1, next).Draw(rt, "again")
					if p.members[fmt.Sprintf("uid-%d", n)] != nil {
						w.saw(pooledPod(n, nil), false)
					}
				}
			case 2:
				wt := &waiter{id: fleet.SandboxID(fmt.Sprint("s", len(waiters))), got: make(chan *corev1.Pod, 1)}
				waiters = append(waiters, wt)
				p.waiting = append(p.waiting, wt)
				p.assign()
			case 3:
				if free := p.free(); len(free) > 0 {
					w.saw(free[len(free)-1].pod, true)
				}
			}
			for _, wt := range waiters {
				select {
				case pod := <-wt.got:
					if other := given[pod.UID]; other != "" {
						rt.Fatalf("%s has the pod of %s", wt.id, other)
					}
					given[pod.UID] = wt.id
					held++
				default:
				}
			}
			if len(p.waiting) > 0 && len(p.free()) > 0 {
				rt.Fatalf("%d wait and %d pods are free", len(p.waiting), len(p.free()))
			}
			if need, keep := w.sizes(p, now); need != held+len(p.waiting) || keep != need {
				rt.Fatalf("need %d, keep %d; %d are held and %d wait", need, keep, held, len(p.waiting))
			}
		}
	})
}
