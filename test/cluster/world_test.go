package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/kube"
	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) {
	// The scenarios mostly wait for others, so more of them run at once than
	// there are processors.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("4")
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "muster-cluster-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	return kubetest.Run(m)
}

// binDir is where the programs are, once they were built.
var binDir string

var build = sync.OnceValue(func() error {
	for name, pkg := range map[string]string{"muster": "cmd/muster", "muster-runner": "cmd/muster-runner/pod"} {
		c := exec.Command("go", "build", "-o", filepath.Join(binDir, name), "muster.dev/muster/"+pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
})

var fleets = schema.GroupVersionResource{Group: kube.Group, Version: "v1alpha1", Resource: "fleets"}

// slow reports whether the full sizes were asked for.
func slow() bool { return os.Getenv("MUSTER_SLOW_TESTS") == "1" }

// world is a namespace of the cluster with a node group, and the control
// planes that were started for it.
type world struct {
	t     testing.TB
	c     *kubetest.Cluster
	ns    string
	group *kubetest.NodeGroup
	pods  *podWatch
	front *front // what pods reach, as a Service would
}

// options of a world; zero fields mean what setUp says.
type options struct {
	group     kubetest.GroupOptions // defaults: 8 slots of 1 core, boot 2 s, 0 to 20
	inProcess bool                  // runners are goroutines: for many of them
	startup   time.Duration         // of a pod
}

// setUp makes a world: the CRD, a namespace, a node group whose nodes carry the
// label pool=<namespace> and the taint of dedicated nodes, and a kubelet.
func setUp(t testing.TB, o options) *world {
	t.Helper()
	c := kubetest.Start(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	crd, err := os.ReadFile("../../deploy/crds/muster.dev_fleets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.InstallCRDs(t, crd)
	// The chart makes it, too.
	seat := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "muster-seat"}, Value: -5}
	if _, err := c.Client.SchedulingV1().PriorityClasses().Create(t.Context(), seat, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	w := &world{t: t, c: c, ns: c.Namespace(t), front: newFront(t)}
	g := o.group
	g.Name, g.Labels = w.ns, map[string]string{"pool": w.ns}
	g.Taints = []corev1.Taint{{Key: kube.TaintDedicated, Value: "agents", Effect: corev1.TaintEffectNoSchedule}}
	def(&g.MilliCPU, 8500)
	def(&g.Memory, 9<<30)
	def(&g.Max, 20)
	def(&g.Boot, 2*time.Second)
	w.group = c.NodeGroup(t, g)
	k := kubetest.KubeletOptions{Namespace: w.ns, Startup: o.startup, Runner: filepath.Join(binDir, "muster-runner")}
	if o.inProcess {
		k.Runner, k.InProcess = "", runInProcess
	}
	c.Kubelet(t, k)
	w.pods = watchPods(t, c, w.ns)
	return w
}

func def[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// fleetSpec is the usual fleet of a scenario; more is YAML that is merged over
// spec, one level deep.
func (w *world) fleetSpec(more string) map[string]any {
	w.t.Helper()
	spec := map[string]any{}
	base := fmt.Sprintf(`
templates:
- name: default
  image: example.test/agent:1
  runtime: auto
  resources: {cpus: 1, memory: 1Gi, disk: 1Gi}
  timeouts: {startup: 60s, run: 10m}
objective: {startP99: 5s}
capacity: {sandboxes: {min: 0, max: 200}}
nodes:
  provider: kubernetes
  slots: 8
  max: 20
  boot: 5s
  kubernetes:
    nodeSelector: {pool: %s}
`, w.ns)
	for _, text := range []string{base, more} {
		part := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &part); err != nil {
			w.t.Fatal(err)
		}
		for k, v := range part {
			spec[k] = v
		}
	}
	return spec
}

// apply creates a fleet, or replaces its spec.
func (w *world) apply(name string, spec map[string]any) {
	w.t.Helper()
	if err := w.tryApply(name, spec); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryApply(name string, spec map[string]any) error {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": kube.Group + "/v1alpha1", "kind": "Fleet",
		"metadata": map[string]any{"name": name, "namespace": w.ns}, "spec": spec,
	}}
	api := w.c.Dynamic.Resource(fleets).Namespace(w.ns)
	_, err := api.Apply(w.t.Context(), name, o, metav1.ApplyOptions{FieldManager: "scenario", Force: true})
	return err
}

// remove deletes a fleet and waits until its finalizer has gone.
func (w *world) remove(name string) {
	w.t.Helper()
	w.drop(name)
	w.gone(name)
}

// drop deletes a fleet.
func (w *world) drop(name string) {
	w.t.Helper()
	if err := w.c.Dynamic.Resource(fleets).Namespace(w.ns).Delete(w.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// gone waits until a fleet has no finalizer left.
func (w *world) gone(name string) {
	w.t.Helper()
	w.until(60*time.Second, "the fleet is gone", func() error {
		if _, err := w.c.Dynamic.Resource(fleets).Namespace(w.ns).Get(w.t.Context(), name, metav1.GetOptions{}); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}

// condition returns a condition of a fleet: its status, reason and message.
func (w *world) condition(name, kind string) (status, reason, message string) {
	o, err := w.c.Dynamic.Resource(fleets).Namespace(w.ns).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return "", "", err.Error()
	}
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range list {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			status, _ = m["status"].(string)
			reason, _ = m["reason"].(string)
			message, _ = m["message"].(string)
		}
	}
	return status, reason, message
}

// until polls: other processes have to come round, there is no clock to fake.
func (w *world) until(limit time.Duration, what string, done func() error) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	var err error
	for time.Now().Before(deadline) {
		if err = done(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Fatalf("within %s: %s: %v", limit, what, err)
}

// nothingLeft fails unless every object that Muster made has gone.
func (w *world) nothingLeft() {
	w.t.Helper()
	w.until(30*time.Second, "nothing of the fleet is left", func() error {
		sel := metav1.ListOptions{LabelSelector: kube.LabelOwner + "=" + kube.Owner}
		ctx := context.Background()
		pods, err := w.c.Client.CoreV1().Pods(w.ns).List(ctx, sel)
		if err != nil {
			return err
		}
		policies, err := w.c.Client.NetworkingV1().NetworkPolicies(w.ns).List(ctx, sel)
		if err != nil {
			return err
		}
		if len(pods.Items)+len(policies.Items) > 0 {
			return fmt.Errorf("%d pods, %d network policies", len(pods.Items), len(policies.Items))
		}
		return nil
	})
}

func (w *world) create(pod *corev1.Pod) {
	w.t.Helper()
	if _, err := w.c.Client.CoreV1().Pods(w.ns).Create(w.t.Context(), pod, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}
