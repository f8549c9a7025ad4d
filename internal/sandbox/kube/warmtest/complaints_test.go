package warmtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/sandbox/sandboxtest"
	kubetest "muster.dev/muster/test/kube"
)

// waiting is a task that runs until its sandbox is destroyed.
func waiting(n int) fleet.Assignment {
	return fleet.Assignment{
		Task: fleet.NewTaskID(time.Now()), Fence: int64(n), LogBytes: 1 << 20,
		Command: []string{"sh", "-c", "echo up; while :; do sleep 1; done"},
	}
}

// createAll creates n sandboxes at once.
func createAll(t testing.TB, a *kube.Sandboxes, n int) []fleet.SandboxSpec {
	t.Helper()
	specs := make([]fleet.SandboxSpec, n)
	var wg sync.WaitGroup
	for i := range specs {
		specs[i] = specOf()
		wg.Go(func() {
			if _, err := a.Create(t.Context(), specs[i]); err != nil {
				t.Errorf("create: %v", err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return specs
}

func destroyAll(t testing.TB, a *kube.Sandboxes, specs []fleet.SandboxSpec) {
	t.Helper()
	var wg sync.WaitGroup
	for _, spec := range specs {
		wg.Go(func() {
			if err := a.Destroy(t.Context(), spec.ID); err != nil {
				t.Errorf("destroy: %v", err)
			}
		})
	}
	wg.Wait()
}

// owners are the owners of the Sandbox objects, by their name: kind/name.
func (s *site) owners(t testing.TB) map[string]string {
	t.Helper()
	of := map[string]string{}
	for _, sb := range s.objects(t, core, "sandboxes") {
		for _, o := range sb.GetOwnerReferences() {
			of[sb.GetName()] = o.Kind + "/" + o.Name
		}
	}
	return of
}

// TestClaimsStayInTheirFleet: two fleets with the same template in one
// namespace, and each claim binds the very pod that runs its task.
func TestClaimsStayInTheirFleet(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	names := []string{"red", "blue"}
	sets, fleets := make([][]fleet.SandboxSpec, 2), make([]*kube.Sandboxes, 2)
	for i, name := range names {
		fleets[i] = s.opened(t, name, true)
		sets[i] = createAll(t, fleets[i], 3)
	}
	for i := range names {
		for n, spec := range sets[i][:2] {
			if err := fleets[i].Claim(t.Context(), spec.ID, waiting(n), sandboxtest.NewRecorder()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, name := range names {
		for n, spec := range sets[i] {
			pod := s.pod(t, spec.ID)
			if pod.Labels["muster.dev/fleet"] != name {
				t.Errorf("a sandbox of %s holds a pod of %s", name, pod.Labels["muster.dev/fleet"])
			}
			if n == 2 {
				continue
			}
			eventually(t, "the claim of "+pod.Name+" owns it", func() bool { return s.owners(t)[pod.Name] == "SandboxClaim/"+pod.Name })
			eventually(t, "the pod says that it is claimed", func() bool {
				p := s.pod(t, spec.ID)
				return p.Labels["muster.dev/state"] == "claimed" && p.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false" &&
					p.Annotations["karpenter.sh/do-not-disrupt"] == "true" && p.Annotations["muster.dev/task"] != ""
			})
		}
	}
	if n := len(s.objects(t, extensions, "sandboxclaims")); n != 4 {
		t.Errorf("%d claims for 4 tasks", n)
	}
	// One fleet goes; the other has all it had.
	destroyAll(t, fleets[0], sets[0])
	eventually(t, "the pods of red are gone", func() bool { return len(s.pods(t, "red")) == 0 })
	for _, spec := range sets[1] {
		if pod := s.pod(t, spec.ID); pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			t.Errorf("a pod of blue is %s", pod.Status.Phase)
		}
	}
	destroyAll(t, fleets[1], sets[1])
}

// TestUnschedulableStartsDoNotMultiply: what does not fit is asked for once,
// however long and often it is asked for.
func TestUnschedulableStartsDoNotMultiply(t *testing.T) {
	s := newSite(t, 0, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", true)
	const n = 4
	var told atomic.Int32
	most, stop := 0, make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				most = max(most, len(s.pods(t, "coders")))
			}
		}
	})
	for range 3 { // as a plan that tries again
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				spec := specOf()
				spec.Startup = 3 * time.Second
				spec.Resources.MilliCPU = 900000
				_, err := a.Create(t.Context(), spec)
				var r *fleet.ReasonError
				if !errors.As(err, &r) || r.Reason != fleet.ReasonTimeoutStartup {
					t.Errorf("%v", err)
				}
				// Until the garbage collector of a young cluster knows the kind, pods
				// that go hold the place of those that are to come.
				if strings.Contains(err.Error(), "no node for it") {
					told.Add(1)
				}
			})
		}
		wg.Wait()
	}
	close(stop)
	watch.Wait()
	if told.Load() < n {
		t.Errorf("%d were told that there is no node", told.Load())
	}
	if most > 2*n || most == 0 { // those of a round that is over may be on their way out
		t.Errorf("%d pods at once for %d sandboxes", most, n)
	}
	eventually(t, "nothing is left of what could not start", func() bool {
		pools := s.objects(t, extensions, "sandboxwarmpools")
		return len(s.pods(t, "coders")) == 0 && len(pools) == 1 && replicas(pools[0]) == 0
	})
}

// TestReplicasDoNotCompound: a warm stock of three, taken and refilled again
// and again, is three.
func TestReplicasDoNotCompound(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", true)
	stock := createAll(t, a, 3)
	var most int64
	look := func() {
		for _, p := range s.objects(t, extensions, "sandboxwarmpools") {
			most = max(most, replicas(p))
		}
	}
	for range 4 {
		taken := stock
		for n, spec := range taken {
			err := a.Claim(t.Context(), spec.ID, waiting(n), sandboxtest.NewRecorder())
			if errors.Is(err, fleet.ErrNotFound) {
				// The controller drops the sandbox that a claim names where its own
				// view of it is behind, and takes another of the pool, which goes
				// with that claim (v0.5.6, getOrCreateSandbox). Dispatch takes
				// another then; so do we, since this is about replicas.
				t.Logf("%s was lost before its claim", spec.ID)
				taken[n] = createAll(t, a, 1)[0]
				err = a.Claim(t.Context(), taken[n].ID, waiting(n), sandboxtest.NewRecorder())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		look()
		stock = createAll(t, a, 3)
		look()
		destroyAll(t, a, taken)
		look()
	}
	eventually(t, "the pool has what is held and no more", func() bool {
		look()
		pools := s.objects(t, extensions, "sandboxwarmpools")
		return len(pools) == 1 && replicas(pools[0]) == 3 && len(s.pods(t, "coders")) == 3
	})
	if most > 6 {
		t.Errorf("the pool had up to %d replicas for a stock of 3 and 3 tasks", most)
	}
	destroyAll(t, a, stock)
}

// TestScaleInIsByName: of a pool that shrinks the chosen sandbox goes, and none
// that has a task.
func TestScaleInIsByName(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", true)
	specs := createAll(t, a, 6)
	sinks := make([]*sandboxtest.Recorder, 2)
	for n := range sinks { // the newest two: what a controller would take first
		sinks[n] = sandboxtest.NewRecorder()
		if err := a.Claim(t.Context(), specs[4+n].ID, waiting(n), sinks[n]); err != nil {
			t.Fatal(err)
		}
	}
	destroyAll(t, a, specs[:3])
	if ids, err := a.List(t.Context()); err != nil || !slices.Equal(ids, idsOf(specs[3:])) {
		t.Errorf("left are %v, %v; want %v", ids, err, idsOf(specs[3:]))
	}
	eventually(t, "three pods are left, one of them in the pool", func() bool {
		pools := s.objects(t, extensions, "sandboxwarmpools")
		return len(s.pods(t, "coders")) == 3 && len(pools) == 1 && replicas(pools[0]) == 1
	})
	for _, spec := range specs[3:] {
		if p := s.pod(t, spec.ID); p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning {
			t.Errorf("pod of %s: %s, %v", spec.ID, p.Status.Phase, p.DeletionTimestamp)
		}
	}
	destroyAll(t, a, specs[3:])
}

func idsOf(specs []fleet.SandboxSpec) []fleet.SandboxID {
	var ids []fleet.SandboxID
	for _, s := range specs {
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	return ids
}

// TestOrphansAreReaped: a process dies with sandboxes that wait, that have a
// task, and that were still to come; the next one finds all of it.
func TestOrphansAreReaped(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	first := s.open(t, "coders", true)
	specs := createAll(t, first, 3)
	if err := first.Claim(t.Context(), specs[0].ID, waiting(0), sandboxtest.NewRecorder()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the task's sandbox is claimed", func() bool { return len(s.objects(t, extensions, "sandboxclaims")) == 1 })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := s.opened(t, "coders", true)
	if ids, err := second.List(t.Context()); err != nil || !slices.Equal(ids, idsOf(specs)) {
		t.Fatalf("%v, %v; want %v", ids, err, idsOf(specs))
	}
	if task, fence, alive, err := second.Adopt(t.Context(), specs[0]); err != nil || !alive || task == "" || fence != 0 {
		t.Errorf("adopt: %q/%d, %v, %v", task, fence, alive, err)
	}
	for _, spec := range specs { // adopted or not
		if err := second.Destroy(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "nothing is left", func() bool {
		pools := s.objects(t, extensions, "sandboxwarmpools")
		return len(s.pods(t, "coders")) == 0 && len(s.objects(t, core, "sandboxes")) == 0 && len(s.objects(t, extensions, "sandboxclaims")) == 0 &&
			len(pools) == 1 && replicas(pools[0]) == 0
	})
}

// TestImageThatIsNotThere fails at once and leaves nothing.
func TestImageThatIsNotThere(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a := s.opened(t, "coders", true)
	spec := specOf()
	spec.Image = "registry.example/no-such-image:1"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := a.Create(ctx, spec)
	var r *fleet.ReasonError
	if !errors.As(err, &r) || r.Reason != fleet.ReasonImage {
		t.Errorf("%v", err)
	}
	eventually(t, "nothing is left", func() bool { return len(s.pods(t, "coders")) == 0 })
}
