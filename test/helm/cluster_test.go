package helm

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/doctor/cluster"
	"muster.dev/muster/internal/fleet"
	nkube "muster.dev/muster/internal/nodes/kube"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/sandbox/gateway"
	skube "muster.dev/muster/internal/sandbox/kube"
	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// install puts the chart's objects into the cluster, as kubectl apply
// --server-side does, and removes them when the test is over.
func install(t *testing.T, c *kubetest.Cluster, namespace, values string) {
	t.Helper()
	ch, err := Load(filepath.Join(root, chartDir))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Render(ch, Release{Name: "muster", Namespace: namespace, Values: parsed(t, values)})
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Client.Discovery()))
	for _, o := range r.Objects {
		m, err := mapper.RESTMapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		if err != nil {
			t.Fatalf("%s: %v", o.GetKind(), err)
		}
		var at dynamic.ResourceInterface = c.Dynamic.Resource(m.Resource)
		if o.GetNamespace() != "" {
			at = c.Dynamic.Resource(m.Resource).Namespace(o.GetNamespace())
		}
		if _, err := at.Apply(t.Context(), o.GetName(), &o.Unstructured, metav1.ApplyOptions{FieldManager: "helm", Force: true}); err != nil {
			t.Fatalf("install %s %s: %v", o.GetKind(), o.GetName(), err)
		}
		t.Cleanup(func() {
			if err := at.Delete(context.Background(), o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Errorf("remove %s %s: %v", o.GetKind(), o.GetName(), err)
			}
		})
	}
}

// TestTheAPIServerTakesTheChart: real admission, validation and defaulting.
func TestTheAPIServerTakesTheChart(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	for _, values := range []string{sets["as it comes"], sets["the least of the rights"], "fleets: {allNamespaces: true}"} {
		install(t, c, ns, values)
	}
}

// TestTheControlPlaneMayDoWhatItDoes asks the real authorizer about the chart's
// account, and about that of sandboxes.
func TestTheControlPlaneMayDoWhatItDoes(t *testing.T) {
	c := kubetest.Start(t)
	ns, agents := c.Namespace(t), c.Namespace(t)
	install(t, c, ns, everyRight+"fleets: {namespace: "+agents+"}")
	o := cluster.Options{
		Client: c.Client, Dynamic: c.Dynamic, Namespace: agents, Account: ns + "/muster",
		Needs: cluster.Needs{Headroom: "buffer", Warm: "agent-sandbox", Targets: true, Secrets: []string{"keys"}, ServiceAccount: "muster-sandbox"},
	}
	until(t, func() error { return allowed(t, &o) })
	for _, a := range []authorizationv1.ResourceAttributes{
		{Verb: "list", Resource: "secrets", Namespace: agents},
		{Verb: "get", Resource: "secrets", Namespace: ns},
		{Verb: "get", Resource: "secrets", Namespace: "kube-system"},
		{Verb: "create", Resource: "pods", Namespace: "kube-system"},
		{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: agents},
		{Verb: "create", Resource: "pods", Subresource: "eviction", Namespace: agents},
		{Verb: "create", Resource: "serviceaccounts", Subresource: "token", Namespace: agents},
		{Verb: "delete", Resource: "nodes"},
		{Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "rolebindings", Namespace: agents},
		{Verb: "update", Resource: "nodes", Subresource: "status"},
	} {
		if may(t, c, ns, "muster", a) {
			t.Errorf("the control plane may %s %s/%s in %q", a.Verb, a.Resource, a.Subresource, a.Namespace)
		}
	}
	for _, a := range []authorizationv1.ResourceAttributes{
		{Verb: "get", Resource: "pods", Namespace: agents}, {Verb: "get", Resource: "secrets", Namespace: agents},
		{Verb: "list", Resource: "nodes"}, {Verb: "get", Group: "muster.dev", Resource: "fleets", Namespace: agents},
	} {
		if may(t, c, agents, "muster-sandbox", a) {
			t.Errorf("a sandbox may %s %s", a.Verb, a.Resource)
		}
	}
}

// allowed asks about every call that the control plane makes.
func allowed(t *testing.T, o *cluster.Options) error {
	for _, headroom := range []string{"buffer", "karpenter"} {
		o.Needs.Headroom = headroom
		for _, f := range cluster.Examine(t.Context(), *o).Findings {
			if strings.HasPrefix(f.Check, "rights.") && f.Level != doctor.OK {
				return errors.New(f.Found)
			}
		}
	}
	return nil
}

// TestTheControlPlaneMayDoItEverywhere: with fleets.allNamespaces it may work for
// fleets of namespaces that the release knows nothing of, and watch them all; its
// own namespace's Leases stay its own.
func TestTheControlPlaneMayDoItEverywhere(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	install(t, c, ns, everyRight+"fleets: {allNamespaces: true}")
	for _, agents := range []string{c.Namespace(t), c.Namespace(t)} {
		o := cluster.Options{
			Client: c.Client, Dynamic: c.Dynamic, Namespace: agents, Account: ns + "/muster",
			Needs: cluster.Needs{Headroom: "buffer", Warm: "agent-sandbox", Targets: true, Secrets: []string{"keys"}, ServiceAccount: "default"},
		}
		until(t, func() error { return allowed(t, &o) })
		if may(t, c, ns, "muster", authorizationv1.ResourceAttributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: agents}) {
			t.Error("the control plane may write Leases outside of its namespace")
		}
	}
	if !may(t, c, ns, "muster", authorizationv1.ResourceAttributes{Verb: "watch", Group: "muster.dev", Resource: "fleets"}) {
		t.Error("the control plane may not watch the fleets of all namespaces")
	}
}

func may(t *testing.T, c *kubetest.Cluster, ns, account string, a authorizationv1.ResourceAttributes) bool {
	t.Helper()
	r, err := c.Client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + ns + ":" + account, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, "system:authenticated"},
			ResourceAttributes: &a,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Allowed
}

// TestAdaptersWorkUnderTheChartsAccount runs what the control plane is made of
// with the account of the chart: lists of permissions may be wrong, calls are
// not.
func TestAdaptersWorkUnderTheChartsAccount(t *testing.T) {
	c := kubetest.Start(t)
	ns, agents := c.Namespace(t), c.Namespace(t)
	crd, err := os.ReadFile(filepath.Join(root, crds, "muster.dev_fleets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.InstallCRDs(t, crd)
	install(t, c, ns, "fleets: {namespace: "+agents+"}")
	config := c.ServiceAccountConfig(t, ns, "muster")
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("election", func(t *testing.T) { lead(t, client, ns) })
	t.Run("nodes", func(t *testing.T) { bring(t, c, client, dyn, agents) })
	t.Run("sandboxes", func(t *testing.T) { start(t, client, dyn, agents) })
	t.Run("gateway", func(t *testing.T) {
		_, err := gateway.TokenReviews(client)(t.Context(), "no token")
		if !errors.Is(err, fleet.ErrDenied) || strings.Contains(err.Error(), "tokenreviews") {
			t.Errorf("a bad token: %v; want it to be refused, and not the review", err)
		}
	})
	t.Run("sweep", func(t *testing.T) {
		if err := operator.Sweep(t.Context(), dyn, operator.Key{Namespace: agents, Name: "coding"}); err != nil {
			t.Error(err)
		}
	})
}

// lead takes the Lease, leads, and gives it back.
func lead(t *testing.T, client kubernetes.Interface, ns string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	led := false
	err := operator.Election{Client: client, Namespace: ns, Name: "muster", Identity: "test", Logger: slog.New(slog.DiscardHandler)}.Lead(ctx, func(context.Context) error {
		led = true
		stop()
		return nil
	})
	if !led {
		t.Errorf("never led: %v", err)
	}
}

// start opens the fleet's sandboxes and starts one, whose runner never comes:
// it is made, watched and removed.
func start(t *testing.T, client kubernetes.Interface, dyn dynamic.Interface, ns string) {
	t.Helper()
	exchange := skube.NewExchange()
	g := gateway.New(gateway.Options{Key: make([]byte, 32), Verify: gateway.TokenReviews(client), Peers: exchange.Peer, Logger: slog.New(slog.DiscardHandler)})
	s, err := skube.New(t.Context(), skube.Options{
		Client: client, Dynamic: dyn, Namespace: ns, Fleet: "coding", Sessions: g, Exchange: exchange, RunnerImage: "muster",
		Door: skube.Door{URL: "https://127.0.0.1:7443", CA: []byte("none"), Namespace: ns, Labels: map[string]string{"muster.dev/role": "control"}, Port: 7443},
		Pods: skube.PodOptions{ServiceAccount: "muster-sandbox", PriorityClass: "muster-sandbox"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	spec := fleet.SandboxSpec{
		ID: fleet.NewSandboxID(time.Now()), Pool: "default", Template: "default", Runtime: fleet.RuntimeAuto, Image: "debian:12", Startup: 2 * time.Second,
		Resources: fleet.Resources{MilliCPU: 100, MemoryBytes: 64 << 20, DiskBytes: 1 << 30}, Network: fleet.Network{Mode: fleet.NetworkNone},
	}
	var late *fleet.ReasonError
	if _, err := s.Create(t.Context(), spec); !errors.As(err, &late) || late.Reason != fleet.ReasonTimeoutStartup {
		t.Errorf("a sandbox without a runner: %v; want it to be late", err)
	}
	ids, err := s.List(t.Context())
	if err != nil || len(ids) > 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

// bring asks for a node, uses, cordons and returns it.
func bring(t *testing.T, c *kubetest.Cluster, client kubernetes.Interface, dyn dynamic.Interface, ns string) {
	t.Helper()
	labels := map[string]string{"pool": "chart"}
	c.NodeGroup(t, kubetest.GroupOptions{Name: "chart", Labels: labels, MilliCPU: 8000, Memory: 16 << 30, Pods: 110, Max: 2, Boot: 100 * time.Millisecond})
	n, err := nkube.New(nkube.Options{
		Client: client, Dynamic: dyn, Fleet: "coding", Namespace: ns, Selector: labels, Headroom: nkube.HeadroomPlaceholder,
		Slots: 2, Slot: fleet.Resources{MilliCPU: 500, MemoryBytes: 1 << 30}, Image: "wait", PriorityClass: "muster-seat",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() { defer close(over); n.Run(ctx) }()
	defer func() { stop(); <-over }()
	until(t, func() error { return n.Scale(ctx, 1) })
	var id fleet.NodeID
	until(t, func() error {
		list, err := n.List(ctx)
		if err != nil {
			return err
		}
		for _, node := range list {
			if node.State == fleet.NodeReady {
				id = node.ID
				return nil
			}
		}
		return errors.New("no node is ready")
	})
	if err := n.Cordon(ctx, id); err != nil {
		t.Error(err)
	}
	until(t, func() error { return n.Release(ctx, id) })
	until(t, func() error { return n.Scale(ctx, 0) })
}

// until polls a real server, with a deadline.
func until(t *testing.T, done func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
