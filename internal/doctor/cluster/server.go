package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/kube"
)

// apiServer judges the version. Rules in resource definitions, with which a bad
// fleet is refused at once, are stable since Kubernetes 1.29; the chart is
// tested from 1.31 on.
func (e *examiner) apiServer(context.Context) doctor.Finding {
	const check = "api-server"
	v, err := e.Client.Discovery().ServerVersion()
	if err != nil {
		return fail(check, "the API server does not answer: "+err.Error(), "nothing can be said about the cluster", "kubectl version   (the same kubeconfig and context must work)")
	}
	found := "Kubernetes " + v.GitVersion
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	switch {
	case err != nil || v.Major != "1":
		return warn(check, found, "its version could not be understood", "use Kubernetes 1.31 or newer")
	case minor < 29:
		return fail(check, found, "resource definitions with rules (CEL) are missing before 1.29", "upgrade to Kubernetes 1.31 or newer")
	case minor < 31:
		return warn(check, found, "Muster is not tested with it", "upgrade to Kubernetes 1.31 or newer")
	}
	return ok(check, found)
}

func (e *examiner) fleets(context.Context) []doctor.Finding {
	const check, version = "fleets", "v1alpha1"
	names, err := e.served(kube.Group, version)
	switch {
	case err != nil:
		return one(unread(check, "which resources there are", err))
	case !names["fleets"]:
		return one(fail(check, "the resource fleets.muster.dev is not defined", "no fleet can be made",
			"kubectl apply --server-side -f deploy/crds/   (helm install does it, helm upgrade does not)"))
	case !names["fleets/status"]:
		return one(fail(check, "fleets.muster.dev has no status: its definition is an old one", "nobody is told how a fleet is",
			"kubectl apply --server-side -f deploy/crds/"))
	}
	return one(ok(check, "fleets."+kube.Group+"/"+version))
}

// namespace judges where the fleets live, and the account of sandboxes.
func (e *examiner) namespace(ctx context.Context) []doctor.Finding {
	const check = "namespace"
	ns, err := e.Client.CoreV1().Namespaces().Get(ctx, e.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return one(fail(check, fmt.Sprintf("%q does not exist", e.Namespace), "no fleet can be made there", "kubectl create namespace "+e.Namespace))
	case err != nil:
		return one(unread(check, "the namespace "+e.Namespace, err))
	}
	out := []doctor.Finding{ok(check, e.Namespace+", pods are held to restricted")}
	const label = "pod-security.kubernetes.io/enforce"
	switch level := ns.Labels[label]; level {
	case "restricted":
	default:
		if level == "" {
			level = "nothing"
		}
		out[0] = warn(check, e.Namespace+", pods are held to "+level,
			"sandboxes are restricted anyway; whoever else makes pods there is not", "kubectl label namespace "+e.Namespace+" "+label+"=restricted --overwrite")
	}
	return append(out, e.account(ctx)...)
}

func (e *examiner) account(ctx context.Context) []doctor.Finding {
	const check = "sandbox-account"
	name := e.Needs.ServiceAccount
	if name == "" {
		name = "default"
	}
	_, err := e.Client.CoreV1().ServiceAccounts(e.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return one(fail(check, fmt.Sprintf("no service account %q in %s", name, e.Namespace), "pods of sandboxes are refused",
			"kubectl create serviceaccount -n "+e.Namespace+" "+name))
	case err != nil:
		return one(unread(check, "the service account "+name, err))
	}
	// Rights of the account are rights of nobody: its token is not in the pod.
	// They are not looked for.
	return one(ok(check, name+"; its token never reaches the agent"))
}

// metrics judges whether the use of sandboxes can be read.
func (e *examiner) metrics(context.Context) []doctor.Finding {
	const check = "metrics"
	names, err := e.served("metrics.k8s.io", "v1beta1")
	switch {
	case err != nil:
		return one(warn(check, "metrics.k8s.io is registered and does not answer: "+err.Error(),
			"what the agents use of processors and memory is unknown", "kubectl get apiservice v1beta1.metrics.k8s.io"))
	case !names["pods"]:
		return one(warn(check, "metrics.k8s.io is not served", "what the agents use of processors and memory is unknown; limits hold all the same",
			"install metrics-server"))
	}
	return one(ok(check, "metrics.k8s.io"))
}
