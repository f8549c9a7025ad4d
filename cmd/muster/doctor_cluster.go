package main

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/doctor"
	readiness "muster.dev/muster/internal/doctor/cluster"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// clusterFlags are those of `muster doctor --kubernetes`.
type clusterFlags struct {
	access    kube.Access
	namespace string
	account   string
	fleetFile string
}

// examineCluster looks at the cluster that the flags name.
func examineCluster(ctx context.Context, f clusterFlags) (doctor.Report, error) {
	config, namespace, err := f.access.Config()
	if err != nil {
		return doctor.Report{}, withHint(err, "name a cluster with --kubeconfig and --context")
	}
	config.Timeout = 30 * time.Second
	o := readiness.Options{Namespace: namespace, Account: f.account}
	if f.fleetFile != "" {
		spec, own, err := fleetOfCluster(f.fleetFile)
		if err != nil {
			return doctor.Report{}, err
		}
		o.Needs = spec
		if own != "" {
			o.Namespace = own
		}
	}
	if f.namespace != "" {
		o.Namespace = f.namespace
	}
	if ns, name, ok := strings.Cut(f.account, "/"); f.account != "" && (!ok || ns == "" || name == "") {
		return doctor.Report{}, usageError("--account %q is none; want namespace/name of a service account", f.account)
	}
	if o.Client, err = kubernetes.NewForConfig(config); err != nil {
		return doctor.Report{}, err
	}
	if o.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return doctor.Report{}, err
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" { // only from inside is a Service reached
		var d net.Dialer
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	return readiness.Examine(ctx, o), nil
}

// fleetOfCluster reads what a fleet asks of a cluster, and its namespace.
func fleetOfCluster(file string) (readiness.Needs, string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return readiness.Needs{}, "", usageError("--fleet: %v", err)
	}
	f, err := v1alpha1.ParseFleet(b)
	if err != nil {
		return readiness.Needs{}, "", err
	}
	n, err := clusterNeeds(f)
	return n, f.Metadata.Namespace, err
}

func clusterNeeds(f *v1alpha1.Fleet) (readiness.Needs, error) {
	n := readiness.Needs{Fleet: f.Metadata.Name, Targets: len(f.Spec.Targets) > 0, Consumers: f.Spec.HasConsumers(), Sandboxes: f.Spec.Capacity.Sandboxes.Max}
	if s := f.Spec.Secrets.Kubernetes; s != "" {
		n.Secrets = append(n.Secrets, s)
	}
	templates, err := f.TemplateSpecs()
	if err != nil {
		return n, err
	}
	for _, t := range templates {
		n.Runtimes = append(n.Runtimes, t.Runtime)
		n.Each.MilliCPU = max(n.Each.MilliCPU, t.Resources.MilliCPU)
		n.Each.MemoryBytes = max(n.Each.MemoryBytes, t.Resources.MemoryBytes)
		n.Each.DiskBytes = max(n.Each.DiskBytes, t.Resources.DiskBytes)
	}
	k := f.Spec.Nodes.Kubernetes
	if k == nil {
		if f.Spec.Nodes.Provider != v1alpha1.ProviderKubernetes && len(f.Spec.Targets) == 0 {
			return n, &fleet.FieldError{Field: "spec.nodes.provider", Wrong: "this fleet is not one for a cluster", Right: "kubernetes"}
		}
		return n, nil
	}
	n.NodeSelector, n.Headroom, n.NodePool, n.Warm = k.NodeSelector, k.Headroom, k.NodePool, k.Warm
	n.PriorityClass, n.SeatClass, n.ServiceAccount = k.PriorityClass, k.PlaceholderPriorityClass, k.ServiceAccount
	n.RuntimeClasses = map[fleet.Runtime]string{fleet.RuntimeGVisor: k.RuntimeClasses.GVisor, fleet.RuntimeKata: k.RuntimeClasses.Kata}
	return n, nil
}
