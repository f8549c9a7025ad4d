package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/doctor"
)

// Labels by which the chart's objects are found, in whatever namespace they
// are.
const (
	ours    = "app.kubernetes.io/name=muster"
	gateway = ours + ",app.kubernetes.io/component=gateway"
)

const install = "helm install muster deploy/helm/muster --namespace muster --create-namespace"

// controlPlane judges whether one is there, and runs.
func (e *examiner) controlPlane(ctx context.Context) []doctor.Finding {
	const check = "control-plane"
	list, err := e.Client.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	switch {
	case err != nil:
		return one(unread(check, "deployments of all namespaces", err))
	case len(list.Items) == 0:
		return one(warn(check, "not installed (no Deployment with the label "+ours+")", "fleets are kept and nothing is done for them", install))
	}
	var out []doctor.Finding
	for _, d := range list.Items {
		out = append(out, judgeDeployment(check, d))
	}
	return out
}

func judgeDeployment(check string, d appsv1.Deployment) doctor.Finding {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	found := fmt.Sprintf("%s/%s: %d of %d ready", d.Namespace, d.Name, d.Status.ReadyReplicas, want)
	logs := fmt.Sprintf("kubectl logs -n %s deployment/%s", d.Namespace, d.Name)
	switch {
	case want == 0:
		return warn(check, found, "it was scaled to nothing: fleets stand still", fmt.Sprintf("kubectl scale -n %s deployment/%s --replicas=1", d.Namespace, d.Name))
	case d.Status.ReadyReplicas == 0:
		return fail(check, found, "fleets stand still", logs)
	case d.Status.ReadyReplicas < want:
		return warn(check, found, "there is one to take over less", logs)
	}
	return ok(check, found)
}

// gateway judges whether runners have somebody to dial.
func (e *examiner) gateway(ctx context.Context) []doctor.Finding {
	const check = "gateway"
	list, err := e.Client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: gateway})
	switch {
	case err != nil:
		return one(unread(check, "services of all namespaces", err))
	case len(list.Items) == 0:
		return one(warn(check, "no Service with the labels "+gateway, "no sandbox can be reached", install))
	}
	var out []doctor.Finding
	for _, s := range list.Items {
		out = append(out, e.reach(ctx, check, s))
	}
	return out
}

func (e *examiner) reach(ctx context.Context, check string, s corev1.Service) doctor.Finding {
	found := s.Namespace + "/" + s.Name
	slices, err := e.Client.DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + s.Name})
	if err != nil {
		return unread(check, "endpoints of "+found, err)
	}
	n := 0
	for _, slice := range slices.Items {
		for _, p := range slice.Endpoints {
			if p.Conditions.Ready == nil || *p.Conditions.Ready {
				n += len(p.Addresses)
			}
		}
	}
	if n == 0 {
		return fail(check, found+" leads to no pod", "no control plane leads, or it is not ready: no sandbox can be reached",
			"kubectl get pods -n "+s.Namespace+" -l "+ours+" -L muster.dev/leader")
	}
	if e.Dial == nil || len(s.Spec.Ports) == 0 {
		return ok(check, found+" leads to the leader; it was not dialled, since you are outside of the cluster")
	}
	at := fmt.Sprintf("%s.%s.svc:%d", s.Name, s.Namespace, s.Spec.Ports[0].Port)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := e.Dial(ctx, at)
	if err != nil {
		return fail(check, at+" does not answer: "+err.Error(), "no sandbox can be reached", "look for a NetworkPolicy that keeps "+e.Namespace+" from "+s.Namespace)
	}
	_ = c.Close()
	return ok(check, at+" answers")
}

// warm judges how warm sandboxes are kept.
func (e *examiner) warm(context.Context) []doctor.Finding {
	const check, group, version = "agent-sandbox", warmGroup, "v1beta1"
	names, err := e.served(group, version)
	if err != nil {
		return one(unread(check, "which resources there are", err))
	}
	var missing []string
	for _, r := range []string{"sandboxtemplates", "sandboxwarmpools", "sandboxclaims"} {
		if !names[r] {
			missing = append(missing, r)
		}
	}
	switch {
	case len(missing) == 0:
		return one(ok(check, group+"/"+version+": warm sandboxes are members of its pools"))
	case e.Needs.Warm == "agent-sandbox":
		return one(fail(check, "not served: "+strings.Join(missing, ", ")+" of "+group+"/"+version, "the fleet asks for warm: agent-sandbox, and no sandbox can be made",
			"install agent-sandbox, or set spec.nodes.kubernetes.warm: auto"))
	case len(missing) < 3:
		return one(warn(check, "of "+group+"/"+version+" these are not served: "+strings.Join(missing, ", "), "it is installed in part; sandboxes are plain pods", "install all of its resource definitions"))
	}
	return one(ok(check, "not installed: warm sandboxes are plain pods"))
}
