package kube_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

var podsResource = schema.GroupResource{Resource: "pods"}

// reasonOf is the reason an error carries.
func reasonOf(err error) fleet.TaskReason {
	var r *fleet.ReasonError
	if errors.As(err, &r) {
		return r.Reason
	}
	return fleet.ReasonNone
}

// none checks that nothing of the fleet is left in the cluster.
func none(t *testing.T, s *kube.Sandboxes) {
	t.Helper()
	if ids, err := s.List(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("left behind: %v, %v", ids, err)
	}
}

// eventually polls: watches and queues have their own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after 20s: %s", what)
		}
	}
}

func TestWhatNoClusterCanStartIsRefusedWithItsField(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	for field, change := range map[string]func(*fleet.SandboxSpec){
		"image":                 func(p *fleet.SandboxSpec) { p.Image = fleet.ImageHost },
		"mounts":                func(p *fleet.SandboxSpec) { p.Mounts = []fleet.Mount{{Source: "/opt", Target: "/opt"}} },
		"runtime":               func(p *fleet.SandboxSpec) { p.Runtime = fleet.RuntimeGVisor },
		"resources.memoryBytes": func(p *fleet.SandboxSpec) { p.Resources.MemoryBytes = 0 },
	} {
		spec := specOf()
		change(&spec)
		_, err := s.Create(t.Context(), spec)
		var f *fleet.FieldError
		if !errors.As(err, &f) || f.Field != field || !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if n := c.writes.Load(); n != 0 {
		t.Errorf("%d writes", n)
	}
}

func TestAnImageThatIsNotThereFailsAtOnce(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	spec := specOf()
	spec.Image, spec.Startup = noImage, time.Hour
	_, err := s.Create(t.Context(), spec)
	if reasonOf(err) != fleet.ReasonImage || errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "not found") {
		t.Errorf("create: %v", err)
	}
	none(t, s)
}

func TestWhatTheSchedulerSaysIsTold(t *testing.T) {
	c := newCluster(t)
	c.idle = true
	s := c.opened(t)
	spec := specOf()
	spec.Startup = 300 * time.Millisecond
	c.on("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		pod := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
			Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient cpu."}}
		return false, nil, nil
	})
	_, err := s.Create(t.Context(), spec)
	if reasonOf(err) != fleet.ReasonTimeoutStartup || !strings.Contains(err.Error(), "3 Insufficient cpu") {
		t.Errorf("create: %v", err)
	}
	none(t, s)
}

func TestRefusalsOfTheAPIServerSayWhatIsMissing(t *testing.T) {
	forbidden := func(text string) error {
		return apierrors.NewForbidden(podsResource, "x", errors.New(text))
	}
	for _, x := range []struct {
		name string
		err  error
		kind error
		text string
	}{
		{"right", forbidden(`User "system:serviceaccount:muster:muster" cannot create resource "pods"`), fleet.ErrDenied, "lacks the right to create pods in namespace agents"},
		{"quota", forbidden("exceeded quota: compute, requested: cpu=1, used: cpu=10, limited: cpu=10"), fleet.ErrFull, "ResourceQuota"},
		{"admission", forbidden(`violates PodSecurity "restricted:latest"`), fleet.ErrDenied, "admission rule"},
		{"invalid", apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "x", nil), fleet.ErrInvalid, "create pods"},
		{"gone", apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, namespace), fleet.ErrNotFound, namespace},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCluster(t)
			s := c.opened(t)
			c.on("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, x.err
			})
			_, err := s.Create(t.Context(), specOf())
			if !errors.Is(err, x.kind) || !strings.Contains(err.Error(), x.text) {
				t.Errorf("%v", err)
			}
			none(t, s)
		})
	}
}

func TestWhatMayPassIsTriedAgainAndAnswersThatWereLostAreFound(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	answers := []error{
		apierrors.NewTooManyRequests("slow down", 0), apierrors.NewInternalError(errors.New("etcd")),
		context.DeadlineExceeded, // after the pod was made
	}
	c.on("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if len(answers) == 0 {
			return false, nil, nil
		}
		err := answers[0]
		answers = answers[1:]
		if errors.Is(err, context.DeadlineExceeded) {
			pod := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod).DeepCopy()
			pod.UID = "made-anyway"
			if err := c.client.Tracker().Add(pod); err != nil {
				t.Error(err)
			}
		}
		return true, nil, err
	})
	spec := specOf()
	iso, err := s.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if uid := c.pod(t, spec.ID).UID; uid != "made-anyway" || iso.Node != nodeName {
		t.Errorf("uid %s, node %s", uid, iso.Node)
	}
}

func TestAPodOfALostAnswerIsRemovedWhenItShows(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	var lost *corev1.Pod
	c.on("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		lost = a.(clienttesting.CreateAction).GetObject().(*corev1.Pod).DeepCopy()
		return true, nil, apierrors.NewTimeoutError("lost", 0)
	})
	spec := specOf()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Create(ctx, spec); err == nil {
		t.Fatal("created")
	}
	lost.UID = "late"
	if err := c.client.Tracker().Add(lost); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the late pod is removed", func() bool {
		ids, err := s.List(t.Context())
		return err == nil && len(ids) == 0
	})
}

func TestNothingOfOthersIsTouched(t *testing.T) {
	c := newCluster(t)
	c.idle = true
	s := c.opened(t)
	spec := specOf()
	others := []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: string(spec.ID), Namespace: namespace, UID: "a", Labels: map[string]string{
			"app.kubernetes.io/managed-by": "muster", "muster.dev/fleet": "another", "muster.dev/role": "sandbox"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: string(fleet.NewSandboxID(time.Now())), Namespace: namespace, UID: "b",
			Labels: map[string]string{"muster.dev/fleet": "coders", "muster.dev/role": "sandbox"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: string(fleet.NewSandboxID(time.Now())), Namespace: namespace, UID: "c", Labels: map[string]string{
			"app.kubernetes.io/managed-by": "muster", "muster.dev/fleet": "coders", "muster.dev/role": "seat"}}},
	}
	for _, p := range others {
		if err := c.client.Tracker().Add(p); err != nil {
			t.Fatal(err)
		}
	}
	none(t, s)
	if _, err := s.Create(t.Context(), spec); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("create under the name of another's pod: %v", err)
	}
	for _, p := range others {
		id := fleet.SandboxID(p.Name)
		if err := s.Destroy(t.Context(), id); err != nil {
			t.Errorf("destroy: %v", err)
		}
		spec.ID = id
		if _, _, alive, err := s.Adopt(t.Context(), spec); alive || err != nil {
			t.Errorf("adopt: %v, %v", alive, err)
		}
		c.pod(t, id)
	}
}

func TestAClaimIsWrittenOnceAndLater(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	spec := specOf()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if p := c.pod(t, spec.ID); p.Labels["muster.dev/state"] != "ready" || p.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "true" {
		t.Errorf("a waiting pod: %v, %v", p.Labels, p.Annotations)
	}
	r := sandboxtest.NewRecorder()
	a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"sh", "-c", sandboxtest.ScriptSilent}}
	if err := s.Claim(t.Context(), spec.ID, a, r); err != nil {
		t.Fatal(err)
	}
	if n := c.writes.Load(); n != 1 {
		t.Errorf("%d writes when the claim was accepted, want that of the creation", n)
	}
	r.WaitLog(t, "started")
	eventually(t, "the pod says that it holds a task", func() bool {
		p := c.pod(t, spec.ID)
		return p.Labels["muster.dev/state"] == "claimed" && p.Annotations["muster.dev/task"] == string(a.Task) &&
			p.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false" &&
			p.Annotations["karpenter.sh/do-not-disrupt"] == "true"
	})
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if n := c.writes.Load(); n != 3 {
		t.Errorf("%d writes in the life of a sandbox, want 3", n)
	}
}

func TestWhileTheAPIServerIsAway(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	spec := specOf()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	var away atomic.Bool
	away.Store(true)
	c.on("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		if away.Load() {
			return true, nil, apierrors.NewServiceUnavailable("away")
		}
		return false, nil, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if ids, err := s.List(ctx); !errors.Is(err, fleet.ErrUnavailable) || len(ids) > 0 {
		t.Errorf("list: %v, %v", ids, err)
	}
	if err := s.Destroy(ctx, specOf().ID); err == nil {
		t.Error("destroyed")
	}
	r := sandboxtest.NewRecorder()
	a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"sh", "-c", sandboxtest.ScriptHello}}
	if err := s.Claim(t.Context(), spec.ID, a, r); err != nil {
		t.Fatal(err)
	}
	if p := r.Report(t); p.ExitCode != 0 {
		t.Errorf("report %+v", p)
	}
	away.Store(false)
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
}

func TestUsageIsUnknownWhereNothingIsMeasured(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t, func(o *kube.Options) { o.Dynamic = nil })
	spec := specOf()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if u, err := s.Usage(t.Context(), spec.ID); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func TestWithoutTheRightToCloseTheNetworkNothingStarts(t *testing.T) {
	c := newCluster(t)
	c.on("patch", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Group: "networking.k8s.io", Resource: "networkpolicies"}, "x",
			errors.New(`User "u" cannot patch resource "networkpolicies"`))
	})
	_, err := kube.New(t.Context(), kube.Options{
		Client: c.client, Namespace: namespace, Fleet: "coders", Sessions: sessions{}, Exchange: kube.NewExchange(),
		Door: kube.Door{URL: "https://g:1", CIDRs: []string{"10.0.0.1/32"}, Port: 1}, RunnerImage: "r",
	})
	if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "lacks the right to patch networkpolicies") {
		t.Errorf("%v", err)
	}
}

func TestWiringThatIsMissingIsNamed(t *testing.T) {
	_, err := kube.New(t.Context(), kube.Options{Door: kube.Door{URL: "http://x"}})
	for _, field := range []string{"namespace", "fleet", "door.url", "door:", "door.port", "runnerImage", "client"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%q is not in %v", field, err)
		}
	}
}
