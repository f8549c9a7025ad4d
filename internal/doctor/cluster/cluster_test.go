package cluster

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// described is a cluster made of objects and a few facts.
type described struct {
	version  string // minor
	groups   map[string][]string
	objects  map[string]runtime.Object
	dynamic  []runtime.Object
	denied   []string // "verb resource" that the account may not
	unread   string   // resource that may not be listed or read
	needs    Needs
	account  string
	dial     func(context.Context, string) (net.Conn, error)
	unsubtle bool // SubjectAccessReview is not allowed
}

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func meta(ns, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels}
}

func node(name string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: meta("", name, map[string]string{"pool": "agents"}), Spec: corev1.NodeSpec{Taints: taints},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
}

var taint = corev1.Taint{Key: kube.TaintDedicated, Value: "agents", Effect: corev1.TaintEffectNoSchedule}

func pod(name, on string, owner string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta("shop", name, nil), Spec: corev1.PodSpec{NodeName: on}}
	if owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: "x"}}
	}
	return p
}

// healthy is a cluster with nothing to complain of.
func healthy() *described {
	three := int32(3)
	yes := true
	control := map[string]string{"app.kubernetes.io/name": "muster"}
	gate := map[string]string{"app.kubernetes.io/name": "muster", "app.kubernetes.io/component": "gateway"}
	sandbox := pod("sandbox", "n1", "")
	sandbox.Labels = map[string]string{kube.LabelOwner: kube.Owner}
	return &described{
		version: "33",
		groups: map[string][]string{
			"muster.dev/v1alpha1": {"fleets", "fleets/status"}, "metrics.k8s.io/v1beta1": {"pods"},
			"autoscaling.x-k8s.io/v1beta1":       {"capacitybuffers"},
			"extensions.agents.x-k8s.io/v1beta1": {"sandboxtemplates", "sandboxwarmpools", "sandboxclaims"},
		},
		objects: map[string]runtime.Object{
			"namespace": &corev1.Namespace{ObjectMeta: meta("", "agents", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})},
			"account":   &corev1.ServiceAccount{ObjectMeta: meta("agents", "default", nil)},
			"control": &appsv1.Deployment{
				ObjectMeta: meta("muster", "muster", control), Status: appsv1.DeploymentStatus{ReadyReplicas: 3},
				Spec: appsv1.DeploymentSpec{Replicas: &three, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{ServiceAccountName: "muster"}}},
			},
			"gateway": &corev1.Service{ObjectMeta: meta("muster", "muster-gateway", gate), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 7443}}}},
			"endpoints": &discoveryv1.EndpointSlice{
				ObjectMeta: meta("muster", "muster-gateway-x", map[string]string{discoveryv1.LabelServiceName: "muster-gateway"}),
				Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}},
			},
			"gvisor": &nodev1.RuntimeClass{ObjectMeta: meta("", "gvisor", nil), Handler: "runsc"},
			"status": &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cluster-autoscaler-status", Annotations: map[string]string{statusWritten: "2026-03-02 08:59:50.123 +0000 UTC"}},
				Data:       map[string]string{"status": "time: 2026-03-02\nautoscalerStatus: Running\nclusterWide:\n  health:\n    status: Healthy\n"},
			},
			"n1": node("n1", taint), "n2": node("n2", taint), "other": &corev1.Node{ObjectMeta: meta("", "prod", nil)},
			"proxy": pod("kube-proxy", "n1", "DaemonSet"), "web": pod("web", "prod", "ReplicaSet"), "sandbox": sandbox,
			"seat": &schedulingv1.PriorityClass{ObjectMeta: meta("", "muster-seat", nil), Value: -5},
			"cni":  &appsv1.DaemonSet{ObjectMeta: meta("kube-system", "cilium", nil)},
		},
		needs: Needs{
			Fleet: "coding", NodeSelector: map[string]string{"pool": "agents"}, Headroom: "auto", Warm: "auto",
			Runtimes: []fleet.Runtime{fleet.RuntimeGVisor}, RuntimeClasses: map[fleet.Runtime]string{fleet.RuntimeGVisor: "gvisor"},
			Sandboxes: 100, Each: fleet.Resources{MilliCPU: 1000, MemoryBytes: 2 << 30, DiskBytes: 10 << 30},
		},
	}
}

func (d *described) examine(t *testing.T) doctor.Report {
	t.Helper()
	var objects []runtime.Object
	for _, o := range d.objects {
		objects = append(objects, o)
	}
	client := fake.NewClientset(objects...)
	disco := client.Discovery().(*fakediscovery.FakeDiscovery)
	disco.FakedServerVersion = &version.Info{Major: "1", Minor: d.version, GitVersion: "v1." + d.version + ".0"}
	for gv, names := range d.groups {
		l := &metav1.APIResourceList{GroupVersion: gv}
		for _, n := range names {
			l.APIResources = append(l.APIResources, metav1.APIResource{Name: n})
		}
		disco.Resources = append(disco.Resources, l)
	}
	client.PrependReactor("create", "selfsubjectaccessreviews", func(a k8stesting.Action) (bool, runtime.Object, error) {
		r := a.(k8stesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		r.Status.Allowed = d.allows(r.Spec.ResourceAttributes)
		return true, r, nil
	})
	client.PrependReactor("create", "subjectaccessreviews", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if d.unsubtle {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "subjectaccessreviews"}, "", errors.New("no"))
		}
		r := a.(k8stesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		r.Status.Allowed = d.allows(r.Spec.ResourceAttributes)
		return true, r, nil
	})
	if d.unread != "" {
		client.PrependReactor("*", d.unread, func(a k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", errors.New("no"))
		})
	}
	dyn := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{nodePools: "NodePoolList"}, d.dynamic...)
	return Examine(t.Context(), Options{
		Client: client, Dynamic: dyn, Namespace: "agents", Account: d.account, Needs: d.needs, Dial: d.dial, Now: func() time.Time { return now },
	})
}

func (d *described) allows(a *authorizationv1.ResourceAttributes) bool {
	for _, no := range d.denied {
		if no == a.Verb+" "+a.Resource {
			return false
		}
	}
	return true
}

func find(r doctor.Report, check string) doctor.Finding {
	for _, f := range r.Findings {
		if f.Check == check && f.Level == r.Level {
			return f
		}
	}
	for _, f := range r.Findings {
		if f.Check == check {
			return f
		}
	}
	return doctor.Finding{}
}

func TestHealthyCluster(t *testing.T) {
	r := healthy().examine(t)
	for _, f := range r.Findings {
		if f.Level != doctor.OK {
			t.Errorf("%+v", f)
		}
	}
	if got := find(r, "rights.sandboxes").Found; !strings.HasPrefix(got, "muster/muster may make all ") {
		t.Errorf("whose rights were looked at: %q", got)
	}
	if len(r.Findings) < 18 {
		t.Errorf("only %d findings", len(r.Findings))
	}
}

func karpenterPool(replicas bool, labels map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": map[string]any{"name": "agents"},
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"labels": labels}}},
	}}
	if replicas {
		_ = unstructured.SetNestedField(u.Object, int64(0), "spec", "replicas")
	}
	return u
}

func (d *described) karpenter(p *unstructured.Unstructured) {
	delete(d.objects, "status")
	d.groups["karpenter.sh/v1"] = []string{"nodepools", "nodeclaims"}
	if p != nil {
		d.dynamic = append(d.dynamic, p)
	}
}

func quantities(kv ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		l[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return l
}

// Each row changes one thing; the finding has the level, says what was found,
// what it means, and how to mend it.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		check string
		level doctor.Level
		found string
		spoil func(d *described)
	}{
		{"api-server", doctor.Fail, "v1.28", func(d *described) { d.version = "28" }},
		{"api-server", doctor.Warn, "v1.29", func(d *described) { d.version = "29+" }},
		{"fleets", doctor.Fail, "not defined", func(d *described) { delete(d.groups, "muster.dev/v1alpha1") }},
		{"fleets", doctor.Fail, "old one", func(d *described) { d.groups["muster.dev/v1alpha1"] = []string{"fleets"} }},
		{"namespace", doctor.Fail, "does not exist", func(d *described) { delete(d.objects, "namespace") }},
		{"namespace", doctor.Warn, "held to baseline", func(d *described) {
			d.objects["namespace"].(*corev1.Namespace).Labels["pod-security.kubernetes.io/enforce"] = "baseline"
		}},
		{"namespace", doctor.Warn, "held to nothing", func(d *described) { d.objects["namespace"].(*corev1.Namespace).Labels = nil }},
		{"sandbox-account", doctor.Fail, `"own"`, func(d *described) { d.needs.ServiceAccount = "own" }},
		{"control-plane", doctor.Warn, "not installed", func(d *described) { delete(d.objects, "control") }},
		{"control-plane", doctor.Fail, "0 of 3", func(d *described) { d.objects["control"].(*appsv1.Deployment).Status.ReadyReplicas = 0 }},
		{"control-plane", doctor.Warn, "1 of 3", func(d *described) { d.objects["control"].(*appsv1.Deployment).Status.ReadyReplicas = 1 }},
		{"gateway", doctor.Warn, "no Service", func(d *described) { delete(d.objects, "gateway") }},
		{"gateway", doctor.Fail, "leads to no pod", func(d *described) { delete(d.objects, "endpoints") }},
		{"gateway", doctor.Fail, "refused", func(d *described) {
			d.dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") }
		}},
		{"rights.sandboxes", doctor.Fail, "muster/muster may not: create pods, delete pods", func(d *described) { d.denied = []string{"create pods", "delete pods"} }},
		{"rights.gateway", doctor.Fail, "create tokenreviews.authentication.k8s.io", func(d *described) { d.denied = []string{"create tokenreviews"} }},
		{"rights.sandboxes", doctor.Fail, "create sandboxclaims", func(d *described) { d.denied = []string{"create sandboxclaims"} }},
		{"rights.nodes", doctor.Fail, "patch nodes", func(d *described) { d.denied = []string{"patch nodes"} }},
		{"rights.nodes", doctor.Fail, "update nodepools.karpenter.sh/scale", func(d *described) {
			d.needs.Headroom, d.denied = "karpenter", []string{"update nodepools"}
		}},
		{"rights.scaler", doctor.Fail, "update deployments.apps/scale", func(d *described) {
			d.needs.Targets, d.denied = true, []string{"update deployments"}
		}},
		{"rights.operator", doctor.Fail, "get secrets keys", func(d *described) { d.needs.Secrets, d.denied = []string{"keys"}, []string{"get secrets"} }},
		{"rights.operator", doctor.Fail, "me/me may not", func(d *described) { d.account, d.denied = "me/me", []string{"get leases"} }},
		{"rights.operator", doctor.Fail, "you may not", func(d *described) { d.unsubtle, d.denied = true, []string{"get leases"} }},
		{"agent-sandbox", doctor.OK, "plain pods", func(d *described) { delete(d.groups, "extensions.agents.x-k8s.io/v1beta1") }},
		{"agent-sandbox", doctor.Fail, "sandboxclaims", func(d *described) {
			delete(d.groups, "extensions.agents.x-k8s.io/v1beta1")
			d.needs.Warm = "agent-sandbox"
		}},
		{"agent-sandbox", doctor.Warn, "sandboxclaims", func(d *described) {
			d.groups["extensions.agents.x-k8s.io/v1beta1"] = []string{"sandboxtemplates", "sandboxwarmpools"}
		}},
		{"runtime-class", doctor.Fail, `"gvisor", which a template`, func(d *described) { delete(d.objects, "gvisor") }},
		{"runtime-class", doctor.Fail, "there is gvisor", func(d *described) { d.needs.RuntimeClasses[fleet.RuntimeGVisor] = "runsc" }},
		{"runtime-class", doctor.Warn, "neither", func(d *described) { delete(d.objects, "gvisor"); d.needs.Runtimes = nil }},
		{"autoscaler", doctor.OK, "seen 10s ago, healthy", func(*described) {}},
		{"autoscaler", doctor.Warn, "nothing for", func(d *described) {
			d.objects["status"].(*corev1.ConfigMap).Annotations[statusWritten] = "2026-03-02 08:00:00 +0000 UTC"
		}},
		{"autoscaler", doctor.Warn, "Unhealthy", func(d *described) {
			d.objects["status"].(*corev1.ConfigMap).Data["status"] = "Cluster-autoscaler status at x:\nCluster-wide:\n  Health:      Unhealthy (ready=1)\n"
		}},
		{"autoscaler", doctor.Warn, "neither", func(d *described) { delete(d.objects, "status") }},
		{"autoscaler", doctor.OK, "asks for none", func(d *described) { delete(d.objects, "status"); d.needs.Headroom = "none" }},
		{"autoscaler", doctor.Warn, "without a NodePool", func(d *described) { d.karpenter(nil) }},
		{"autoscaler", doctor.OK, "fit: agents", func(d *described) { d.karpenter(karpenterPool(false, map[string]any{"pool": "agents"})) }},
		{"autoscaler", doctor.Warn, "none brings nodes with pool=agents", func(d *described) { d.karpenter(karpenterPool(false, nil)) }},
		{"headroom", doctor.OK, "CapacityBuffer", func(*described) {}},
		{"headroom", doctor.OK, "negative priority", func(d *described) { delete(d.groups, "autoscaling.x-k8s.io/v1beta1") }},
		{"headroom", doctor.Fail, "not served", func(d *described) {
			delete(d.groups, "autoscaling.x-k8s.io/v1beta1")
			d.needs.Headroom = "buffer"
		}},
		{"headroom", doctor.Fail, `no NodePool "agents"`, func(d *described) {
			d.needs.Headroom, d.needs.NodePool = "karpenter", "agents"
			d.karpenter(nil)
		}},
		{"headroom", doctor.Fail, "not a static one", func(d *described) {
			d.needs.Headroom, d.needs.NodePool = "karpenter", "agents"
			d.karpenter(karpenterPool(false, map[string]any{"pool": "agents"}))
		}},
		{"headroom", doctor.OK, "static NodePool agents", func(d *described) {
			d.needs.Headroom, d.needs.NodePool = "karpenter", "agents"
			d.karpenter(karpenterPool(true, map[string]any{"pool": "agents"}))
		}},
		{"nodes", doctor.OK, "2 for agents, 2 ready", func(*described) {}},
		{"nodes", doctor.OK, "brought when there is work", func(d *described) { delete(d.objects, "n1"); delete(d.objects, "n2") }},
		{"nodes", doctor.Fail, "none has the labels pool=agents", func(d *described) {
			delete(d.objects, "n1")
			delete(d.objects, "n2")
			d.needs.Headroom = "none"
		}},
		{"nodes", doctor.Fail, "0 ready", func(d *described) {
			d.objects["n1"].(*corev1.Node).Status.Conditions = nil
			d.objects["n2"].(*corev1.Node).Status.Conditions = nil
		}},
		{"nodes", doctor.Warn, "no nodeSelector", func(d *described) { d.needs.NodeSelector = nil }},
		{"nodes", doctor.Warn, "no fleet was given", func(d *described) {
			d.needs = Needs{}
			d.objects["n1"], d.objects["n2"] = node("n1"), node("n2")
		}},
		{"dedicated", doctor.Warn, "1 of 2 nodes for agents have no taint", func(d *described) { d.objects["n2"] = node("n2") }},
		{"dedicated", doctor.Warn, "1 pods of others run beside agents: shop/web on n1", func(d *described) { d.objects["web"] = pod("web", "n1", "ReplicaSet") }},
		{"priority-class", doctor.Fail, `no PriorityClass "muster-seat"`, func(d *described) { delete(d.objects, "seat") }},
		{"priority-class", doctor.Fail, "value -20", func(d *described) { d.objects["seat"].(*schedulingv1.PriorityClass).Value = -20 }},
		{"priority-class", doctor.Fail, "value 5", func(d *described) { d.objects["seat"].(*schedulingv1.PriorityClass).Value = 5 }},
		{"priority-class", doctor.Fail, "sandboxes have -7", func(d *described) {
			d.objects["low"] = &schedulingv1.PriorityClass{ObjectMeta: meta("", "low", nil), Value: -7, GlobalDefault: true}
		}},
		{"quota", doctor.Warn, "limits.cpu 10, want 100", func(d *described) {
			d.objects["q"] = &corev1.ResourceQuota{ObjectMeta: meta("agents", "q", nil), Spec: corev1.ResourceQuotaSpec{Hard: quantities("limits.cpu", "10", "pods", "500")}}
		}},
		{"quota", doctor.OK, "with room for 100", func(d *described) {
			d.objects["q"] = &corev1.ResourceQuota{ObjectMeta: meta("agents", "q", nil), Spec: corev1.ResourceQuotaSpec{Hard: quantities("limits.cpu", "100", "pods", "100")}}
		}},
		{"limit-range", doctor.Fail, "at most 1Gi memory, a sandbox has 2Gi", func(d *described) {
			d.objects["l"] = &corev1.LimitRange{ObjectMeta: meta("agents", "l", nil), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: quantities("memory", "1Gi")}}}}
		}},
		{"limit-range", doctor.Fail, "at least 2 cpu, a sandbox has 1", func(d *described) {
			d.objects["l"] = &corev1.LimitRange{ObjectMeta: meta("agents", "l", nil), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypePod, Min: quantities("cpu", "2")}}}}
		}},
		{"network-policy", doctor.Warn, "unknown", func(d *described) { delete(d.objects, "cni") }},
		{"metrics", doctor.Warn, "not served", func(d *described) { delete(d.groups, "metrics.k8s.io/v1beta1") }},
		{"nodes", doctor.Warn, "you may not read nodes", func(d *described) { d.unread = "nodes" }},
		{"dedicated", doctor.Warn, "you may not read pods", func(d *described) { d.unread = "pods" }},
		{"quota", doctor.Warn, "you may not read resource quotas", func(d *described) { d.unread = "resourcequotas" }},
		{"runtime-class", doctor.Warn, "you may not read runtime classes", func(d *described) { d.unread = "runtimeclasses" }},
		{"autoscaler", doctor.Warn, "you may not read kube-system", func(d *described) { d.unread = "configmaps" }},
	} {
		t.Run(c.check+" "+c.found, func(t *testing.T) {
			d := healthy()
			c.spoil(d)
			f := find(d.examine(t), c.check)
			if f.Level != c.level || !strings.Contains(f.Found, c.found) {
				t.Fatalf("got %+v, want %s %q", f, c.level, c.found)
			}
			if f.Level != doctor.OK && (f.Means == "" || f.Mend == "") {
				t.Errorf("does not say what it means and how to mend it: %+v", f)
			}
		})
	}
}

// TestNoCluster: where nothing answers there is one finding, not twenty.
func TestNoCluster(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("get", "version", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	r := Examine(t.Context(), Options{Client: client, Namespace: "agents"})
	if len(r.Findings) != 1 || r.Level != doctor.Fail || !strings.Contains(r.Findings[0].Found, "connection refused") {
		t.Errorf("%+v", r)
	}
}

// TestNothingIsWritten but reviews, which the API server does not store.
func TestNothingIsWritten(t *testing.T) {
	client := fake.NewClientset()
	Examine(t.Context(), Options{Client: client, Dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme()), Namespace: "agents"})
	for _, a := range client.Actions() {
		switch a.GetVerb() {
		case "get", "list":
		default:
			if !strings.HasSuffix(a.GetResource().Resource, "accessreviews") {
				t.Errorf("%s %s", a.GetVerb(), a.GetResource().Resource)
			}
		}
	}
}
