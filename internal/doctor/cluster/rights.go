package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/doctor"
)

// Call is a call that the control plane makes.
type Call struct {
	For                                string // who makes it
	Verb, Group, Resource, Subresource string
	Name                               string // of the one object; empty: any
	Everywhere                         bool   // in every namespace, or without one
	Own                                bool   // in the control plane's own namespace
}

func (c Call) String() string {
	r := c.Resource
	if c.Group != "" {
		r += "." + c.Group
	}
	if c.Subresource != "" {
		r += "/" + c.Subresource
	}
	if c.Name != "" {
		r += " " + c.Name
	}
	return c.Verb + " " + r
}

// needed is a set of calls on one resource, as a rule of RBAC says it.
type needed struct {
	by, group, resources, verbs string
	everywhere                  bool
	own                         bool // in the control plane's own namespace
	when                        func(n Needs, served func(group, version string) bool) bool
}

// warmGroup is agent-sandbox's.
const warmGroup = "extensions.agents.x-k8s.io"

func buffers(n Needs, served func(string, string) bool) bool {
	return n.Headroom == "buffer" || (n.Headroom == "" || n.Headroom == "auto") && served("autoscaling.x-k8s.io", "v1beta1")
}

func agentSandbox(n Needs, served func(string, string) bool) bool {
	return n.Warm == "agent-sandbox" || (n.Warm == "" || n.Warm == "auto") && served(warmGroup, "v1beta1")
}

func karpenter(n Needs, _ func(string, string) bool) bool { return n.Headroom == "karpenter" }

func targets(n Needs, _ func(string, string) bool) bool { return n.Targets }

func consumers(n Needs, _ func(string, string) bool) bool { return n.Consumers }

func metrics(_ Needs, served func(string, string) bool) bool {
	return served("metrics.k8s.io", "v1beta1")
}

// table is what the adapters and the operator do. The chart's rules are held
// to it by a test against a real API server.
var table = []needed{
	{by: "operator", group: "muster.dev", resources: "fleets", verbs: "get list watch update"},
	{by: "operator", group: "muster.dev", resources: "fleets/status", verbs: "patch"},
	{by: "operator", resources: "events", verbs: "create patch"},
	{by: "operator", group: "coordination.k8s.io", resources: "leases", verbs: "get list create update", own: true},
	{by: "operator", resources: "pods", verbs: "patch", own: true},
	{by: "operator", resources: "pods", verbs: "get", own: true, when: consumers},
	{by: "operator", group: "apps", resources: "deployments", verbs: "get create patch delete", own: true, when: consumers},
	{by: "operator", resources: "pods", verbs: "list delete"},
	{by: "operator", group: "networking.k8s.io", resources: "networkpolicies", verbs: "list delete"},
	{by: "gateway", group: "authentication.k8s.io", resources: "tokenreviews", verbs: "create", everywhere: true},
	{by: "sandboxes", resources: "pods", verbs: "get list watch create patch delete"},
	{by: "sandboxes", group: "networking.k8s.io", resources: "networkpolicies", verbs: "create patch"},
	{by: "sandboxes", group: "node.k8s.io", resources: "runtimeclasses", verbs: "list", everywhere: true},
	{by: "sandboxes", group: "metrics.k8s.io", resources: "pods", verbs: "list", when: metrics},
	{by: "sandboxes", group: warmGroup, resources: "sandboxtemplates", verbs: "list create delete", when: agentSandbox},
	{by: "sandboxes", group: warmGroup, resources: "sandboxwarmpools", verbs: "get list create patch delete", when: agentSandbox},
	{by: "sandboxes", group: warmGroup, resources: "sandboxclaims", verbs: "list create delete", when: agentSandbox},
	{by: "sandboxes", group: "agents.x-k8s.io", resources: "sandboxes", verbs: "delete", when: agentSandbox},
	{by: "nodes", resources: "nodes", verbs: "list watch patch", everywhere: true},
	{by: "nodes", resources: "pods", verbs: "list watch", everywhere: true},
	{by: "nodes", resources: "pods", verbs: "create delete"},
	{by: "nodes", resources: "events", verbs: "list"},
	{by: "nodes", group: "autoscaling.x-k8s.io", resources: "capacitybuffers", verbs: "get list create patch delete", when: buffers},
	{by: "nodes", resources: "podtemplates", verbs: "get list create update delete", when: buffers},
	{by: "nodes", group: "karpenter.sh", resources: "nodepools/scale", verbs: "get update", everywhere: true, when: karpenter},
	{by: "nodes", group: "karpenter.sh", resources: "nodeclaims", verbs: "list patch", everywhere: true, when: karpenter},
	{by: "nodes", resources: "events", verbs: "list", everywhere: true, when: karpenter},
	{by: "scaler", group: "apps", resources: "deployments/scale statefulsets/scale", verbs: "get update", when: targets},
	{by: "scaler", resources: "pods", verbs: "list patch", when: targets},
	{by: "scaler", group: "apps", resources: "statefulsets", verbs: "get", when: targets},
	{by: "scaler", group: "autoscaling", resources: "horizontalpodautoscalers", verbs: "list", when: targets},
}

// Calls lists what the control plane does for a fleet with these needs, where
// served says whether a version of a group of the API is there.
func Calls(n Needs, served func(group, version string) bool) []Call {
	var out []Call
	for _, t := range table {
		if t.when != nil && !t.when(n, served) {
			continue
		}
		for r := range strings.FieldsSeq(t.resources) {
			resource, sub, _ := strings.Cut(r, "/")
			for v := range strings.FieldsSeq(t.verbs) {
				out = append(out, Call{For: t.by, Verb: v, Group: t.group, Resource: resource, Subresource: sub, Everywhere: t.everywhere, Own: t.own})
			}
		}
	}
	for _, name := range n.Secrets { // by name: rights on secrets may be given so
		out = append(out, Call{For: "operator", Verb: "get", Resource: "secrets", Name: name})
	}
	return out
}

// choose sets the account whose rights are asked for, where none was given.
func (e *examiner) choose(ctx context.Context) {
	if e.Account != "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	list, err := e.Client.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours})
	if err != nil || len(list.Items) == 0 {
		return // what that means, controlPlane says
	}
	d := list.Items[0]
	e.Account = d.Namespace + "/" + d.Spec.Template.Spec.ServiceAccountName
	if _, err := e.may(ctx, Call{Verb: "list", Resource: "pods"}); apierrors.IsForbidden(err) {
		e.Account = ""
	}
}

// asked bounds the reviews at once.
const asked = 8

// rights asks the API server about each call, one finding for each part of the
// control plane.
func (e *examiner) rights(ctx context.Context) []doctor.Finding {
	calls := Calls(e.Needs, func(group, version string) bool {
		names, err := e.served(group, version)
		return err == nil && len(names) > 0
	})
	refused, errs := make([]bool, len(calls)), make([]error, len(calls))
	var wg sync.WaitGroup
	slots := make(chan struct{}, asked)
	for i, c := range calls {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			allowed, err := e.may(ctx, c)
			refused[i], errs[i] = err == nil && !allowed, err
		})
	}
	wg.Wait()
	var out []doctor.Finding
	for _, by := range []string{"operator", "gateway", "sandboxes", "nodes", "scaler"} {
		var missing []string
		var err error
		n := 0
		for i, c := range calls {
			if c.For != by {
				continue
			}
			n++
			err = first(err, errs[i])
			if refused[i] {
				missing = append(missing, c.String())
			}
		}
		if n > 0 {
			out = append(out, e.right("rights."+by, n, missing, err))
		}
	}
	return out
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (e *examiner) right(check string, n int, missing []string, err error) doctor.Finding {
	who := e.Account
	if who == "" {
		who = "you"
	}
	slices.Sort(missing)
	switch {
	case err != nil:
		return unread(check, "what "+who+" may do", err)
	case len(missing) > 0:
		return fail(check, fmt.Sprintf("%s may not: %s", who, strings.Join(slices.Compact(missing), ", ")),
			"that part of the control plane does not work", "give the account the rights of the chart: helm upgrade --install muster deploy/helm/muster --set rbac.create=true")
	}
	return ok(check, fmt.Sprintf("%s may make all %d calls", who, n))
}

// may asks whether one call is allowed.
func (e *examiner) may(ctx context.Context, c Call) (bool, error) {
	a := &authorizationv1.ResourceAttributes{Verb: c.Verb, Group: c.Group, Resource: c.Resource, Subresource: c.Subresource, Name: c.Name}
	if !c.Everywhere {
		a.Namespace = e.Namespace
	}
	api := e.Client.AuthorizationV1()
	if e.Account == "" {
		r, err := api.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: a},
		}, metav1.CreateOptions{})
		if err != nil {
			return false, fmt.Errorf("review %s: %w", c, err)
		}
		return r.Status.Allowed, nil
	}
	ns, name, _ := strings.Cut(e.Account, "/")
	if c.Own {
		a.Namespace = ns
	}
	r, err := api.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			ResourceAttributes: a,
			User:               "system:serviceaccount:" + ns + ":" + name,
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, "system:authenticated"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review %s: %w", c, err)
	}
	return r.Status.Allowed, nil
}
