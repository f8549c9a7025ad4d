package kube_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
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
	c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
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
			c.client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
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
	c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
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
	c.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
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

func TestHowAPodEndedIsTold(t *testing.T) {
	terminated := func(reason string, code int32) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: "agent",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}}}}
	}
	for _, x := range []struct {
		name   string
		status corev1.PodStatus
		lost   fleet.TaskReason
		exit   fleet.TaskReason
		text   string
	}{
		{"memory", terminated("OOMKilled", 137), fleet.ReasonOOM, fleet.ReasonOOM, "resources.memory"},
		{"crash", terminated("Error", 2), fleet.ReasonNodeLost, fleet.ReasonNodeLost, "exit code 2"},
		{"disk", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted",
			Message: `Usage of EmptyDir volume "workspace" exceeds the limit "1Gi". `}, fleet.ReasonDisk, fleet.ReasonNodeLost, "resources.disk"},
		{"pressure", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted",
			Message: "The node was low on resource: memory. "}, fleet.ReasonNodeLost, fleet.ReasonNodeLost, "low on resource"},
		{"preempted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Preempting", Message: "Preempted in order to admit critical pod"},
			fleet.ReasonNodeLost, fleet.ReasonNodeLost, "Preempting"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCluster(t)
			s := c.opened(t)
			waiting, busy := specOf(), specOf()
			for _, spec := range []fleet.SandboxSpec{waiting, busy} {
				if _, err := s.Create(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
			}
			r := sandboxtest.NewRecorder()
			a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"sh", "-c", sandboxtest.ScriptSilent}}
			if err := s.Claim(t.Context(), busy.ID, a, r); err != nil {
				t.Fatal(err)
			}
			for _, spec := range []fleet.SandboxSpec{waiting, busy} {
				pod := c.pod(t, spec.ID)
				c.status(pod, func(p *corev1.Pod) { p.Status = x.status })
				c.kill(pod.UID)
			}
			if err := r.LostWith(t); reasonOf(err) != x.lost || !strings.Contains(err.Error(), x.text) {
				t.Errorf("lost with %v", err)
			}
			for range 2 {
				if e := <-s.Exited(); e.Reason != x.exit || !strings.Contains(e.Err.Error(), x.text) {
					t.Errorf("exit %+v", e)
				}
			}
		})
	}
}

func TestAPodDeletedByOthersIsLost(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	spec := specOf()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := c.client.CoreV1().Pods(namespace).Delete(t.Context(), string(spec.ID), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := <-s.Exited(); e.ID != spec.ID || e.Reason != fleet.ReasonNodeLost || !strings.Contains(e.Err.Error(), "deleted by somebody else") {
		t.Errorf("exit %+v", e)
	}
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Errorf("destroy: %v", err)
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
	c.client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
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

func TestThePodIsConfinedAndHasNoSecret(t *testing.T) {
	c := newCluster(t)
	if err := c.client.Tracker().Add(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "sandboxed"}, Handler: "runsc"}); err != nil {
		t.Fatal(err)
	}
	s := c.opened(t, func(o *kube.Options) { o.Pods.UserNamespaces = true })
	spec := specOf()
	spec.Network = fleet.Network{Mode: fleet.NetworkProxy, Allow: []string{"example.com"}}
	iso, err := s.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if iso.Runtime != fleet.RuntimeGVisor || !iso.UserNamespace || iso.Node != nodeName || iso.Network != fleet.NetworkProxy || !iso.Seccomp {
		t.Errorf("isolation %+v", iso)
	}
	if !slices.ContainsFunc(iso.Lost, func(l string) bool { return strings.Contains(l, "podPidsLimit") }) {
		t.Errorf("lost %q", iso.Lost)
	}
	p := c.pod(t, spec.ID).Spec
	agent, installer := p.Containers[0], p.InitContainers[0]
	for _, v := range agent.VolumeMounts {
		if v.Name == "identity" {
			t.Error("the agent's container sees the token's volume")
		}
	}
	for _, k := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q := agent.Resources.Limits[k]; !q.Equal(agent.Resources.Requests[k]) || q.IsZero() {
			t.Errorf("%s: %v", k, agent.Resources)
		}
	}
	if *p.AutomountServiceAccountToken || *p.HostUsers || *p.RuntimeClassName != "sandboxed" || p.DNSPolicy != corev1.DNSNone ||
		p.HostAliases[0].Hostnames[0] != "gateway.muster" || !*p.SecurityContext.RunAsNonRoot {
		t.Errorf("pod %+v", p)
	}
	for _, x := range []corev1.Container{agent, installer} {
		if c := x.SecurityContext; *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || c.Capabilities.Drop[0] != "ALL" {
			t.Errorf("container %s: %+v", x.Name, c)
		}
	}
}

func TestTheNetworkIsClosedBeforeTheFirstSandbox(t *testing.T) {
	c := newCluster(t)
	wrong := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "muster-coders-sandboxes", Namespace: namespace},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}
	if _, err := c.client.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), wrong, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.opened(t)
	closed, err := c.client.NetworkingV1().NetworkPolicies(namespace).Get(t.Context(), "muster-coders-sandboxes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(closed.Spec.PolicyTypes) != 2 || len(closed.Spec.Ingress) != 0 || len(closed.Spec.Egress) != 1 ||
		closed.Spec.Egress[0].Ports[0].Port.IntValue() != 8443 || closed.Spec.PodSelector.MatchLabels["muster.dev/fleet"] != "coders" {
		t.Errorf("%+v", closed.Spec)
	}
	open, err := c.client.NetworkingV1().NetworkPolicies(namespace).Get(t.Context(), "muster-coders-open", metav1.GetOptions{})
	if err != nil || open.Spec.PodSelector.MatchLabels["muster.dev/network"] != "open" || len(open.Spec.Ingress) > 0 {
		t.Errorf("%+v, %v", open, err)
	}
}

func TestWithoutTheRightToCloseTheNetworkNothingStarts(t *testing.T) {
	c := newCluster(t)
	c.client.PrependReactor("patch", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
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
