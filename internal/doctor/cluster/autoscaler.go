package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/internal/doctor"
)

// What Cluster Autoscaler writes of itself every scan (its FAQ, "How can I
// check what is going on in CA?"). One that has not written for quiet is not
// running.
const (
	statusNamespace = "kube-system"
	statusName      = "cluster-autoscaler-status"
	statusWritten   = "cluster-autoscaler.kubernetes.io/last-updated"
	writtenLayout   = "2006-01-02 15:04:05.999999999 -0700 MST"
	quiet           = 5 * time.Minute
)

var nodePools = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}

// autoscaler says who brings nodes.
func (e *examiner) autoscaler(ctx context.Context) []doctor.Finding {
	const check = "autoscaler"
	var out []doctor.Finding
	cm, err := e.Client.CoreV1().ConfigMaps(statusNamespace).Get(ctx, statusName, metav1.GetOptions{})
	switch {
	case err == nil:
		out = append(out, e.judgeStatus(check, cm.Annotations[statusWritten], cm.Data["status"]))
	case !apierrors.IsNotFound(err):
		out = append(out, unread(check, statusNamespace+"/"+statusName, err))
	}
	names, err := e.served(nodePools.Group, nodePools.Version)
	switch {
	case err != nil:
		out = append(out, unread(check, "which resources there are", err))
	case names["nodepools"]:
		out = append(out, e.karpenter(ctx, check))
	}
	if len(out) > 0 {
		return out
	}
	if e.Needs.Headroom == "none" {
		return one(ok(check, "none seen, and the fleet asks for none (headroom: none)"))
	}
	return one(warn(check, "neither Cluster Autoscaler's status nor Karpenter's NodePools were seen",
		"unless your provider's own autoscaler hides itself, no node comes: the fleet is as large as the nodes that are there",
		"install Cluster Autoscaler or Karpenter for the nodes of agents, or set spec.nodes.kubernetes.headroom: none"))
}

// judgeStatus reads what Cluster Autoscaler wrote, in its YAML form or in the
// text that came before it.
func (e *examiner) judgeStatus(check, written, status string) doctor.Finding {
	found, logs := "Cluster Autoscaler", "kubectl logs -n kube-system -l app=cluster-autoscaler --tail=50"
	if t, err := time.Parse(writtenLayout, written); err == nil {
		age := e.Now().Sub(t).Round(time.Second)
		if age > quiet {
			return warn(check, fmt.Sprintf("%s has written nothing for %s", found, age), "it does not run: no node comes", logs)
		}
		found += fmt.Sprintf(", seen %s ago", max(0, age))
	}
	var s struct {
		AutoscalerStatus string `json:"autoscalerStatus"`
		ClusterWide      struct {
			Health struct {
				Status string `json:"status"`
			} `json:"health"`
		} `json:"clusterWide"`
	}
	health := ""
	if err := yaml.Unmarshal([]byte(status), &s); err == nil {
		health = s.ClusterWide.Health.Status
	}
	if _, after, is := strings.Cut(status, "Health:"); is && health == "" {
		health = strings.Fields(after + " ?")[0]
	}
	switch health {
	case "Healthy":
		return ok(check, found+", healthy")
	case "":
		return ok(check, found)
	}
	return warn(check, found+", "+health, "it may bring no node", logs)
}

func (e *examiner) karpenter(ctx context.Context, check string) doctor.Finding {
	pools, err := e.Dynamic.Resource(nodePools).List(ctx, everything)
	if err != nil {
		return unread(check, "Karpenter's NodePools", err)
	}
	if len(pools.Items) == 0 {
		return warn(check, "Karpenter without a NodePool", "it brings no node", "make a NodePool whose template has the labels and the taint of the nodes for agents; docs/kubernetes.md shows one")
	}
	var fit []string
	for _, p := range pools.Items {
		if e.brings(p) {
			fit = append(fit, p.GetName())
		}
	}
	if len(fit) == 0 {
		return warn(check, fmt.Sprintf("Karpenter with %d NodePools, of which none brings nodes with %s", len(pools.Items), pairs(e.Needs.NodeSelector)),
			"no node comes for this fleet", "give a NodePool's spec.template.metadata.labels these labels")
	}
	return ok(check, "Karpenter, NodePools that fit: "+strings.Join(fit, ", "))
}

// brings tells whether nodes of a NodePool have the fleet's labels: by the
// labels of its template, or by a requirement that admits the value.
func (e *examiner) brings(pool unstructured.Unstructured) bool {
	labels, _, _ := unstructured.NestedStringMap(pool.Object, "spec", "template", "metadata", "labels")
	requirements, _, _ := unstructured.NestedSlice(pool.Object, "spec", "template", "spec", "requirements")
	for k, v := range e.Needs.NodeSelector {
		if labels[k] != v && !admits(requirements, k, v) {
			return false
		}
	}
	return true
}

func admits(requirements []any, key, value string) bool {
	for _, r := range requirements {
		m, is := r.(map[string]any)
		if !is || m["key"] != key || m["operator"] != "In" {
			continue
		}
		values, _ := m["values"].([]any)
		for _, v := range values {
			if v == value {
				return true
			}
		}
	}
	return false
}

// headroom says how nodes are asked for ahead of need.
func (e *examiner) headroom(ctx context.Context) []doctor.Finding {
	const check = "headroom"
	names, err := e.served("autoscaling.x-k8s.io", "v1beta1")
	if err != nil {
		return one(unread(check, "which resources there are", err))
	}
	served := names["capacitybuffers"]
	switch e.Needs.Headroom {
	case "karpenter":
		return one(e.staticPool(ctx, check))
	case "none":
		return one(ok(check, "none is asked for"))
	case "buffer":
		if !served {
			return one(fail(check, "autoscaling.x-k8s.io/v1beta1 CapacityBuffer is not served, and the fleet asks for headroom: buffer", "no node is brought ahead of need",
				"install its resource definition and a Cluster Autoscaler that obeys it, or set headroom: auto"))
		}
	case "placeholder":
		return one(ok(check, "pods of negative priority, as the fleet asks"))
	}
	if served {
		return one(ok(check, "CapacityBuffer (autoscaling.x-k8s.io/v1beta1); the node autoscaler must obey it"))
	}
	return one(ok(check, "pods of negative priority, which every node autoscaler obeys (CapacityBuffer is not served)"))
}

// staticPool judges the NodePool whose replicas the fleet sets.
func (e *examiner) staticPool(ctx context.Context, check string) doctor.Finding {
	name := e.Needs.NodePool
	p, err := e.Dynamic.Resource(nodePools).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fail(check, fmt.Sprintf("there is no NodePool %q", name), "no node is brought", "make it, with spec.replicas, or set headroom: auto")
	case err != nil:
		return unread(check, "the NodePool "+name, err)
	}
	if _, is, _ := unstructured.NestedInt64(p.Object, "spec", "replicas"); !is {
		return fail(check, fmt.Sprintf("the NodePool %q has no spec.replicas: it is not a static one", name), "its size cannot be set",
			"kubectl patch nodepool "+name+" --type=merge -p '{\"spec\":{\"replicas\":0}}'   (it needs Karpenter's feature gate StaticCapacity)")
	}
	return ok(check, "static NodePool "+name)
}
