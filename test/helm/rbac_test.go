package helm

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"muster.dev/muster/internal/doctor/cluster"
)

// granted is where a rule holds: in the namespaces of fleets, in the control
// plane's own, or everywhere.
type granted struct {
	where string // fleets, own, everywhere
	rule  rbacv1.PolicyRule
}

func rules(t *testing.T, r *Rendered) []granted {
	t.Helper()
	var out []granted
	add := func(where string, rules []rbacv1.PolicyRule) {
		for _, rule := range rules {
			out = append(out, granted{where, rule})
		}
	}
	for _, o := range r.Objects {
		switch v := typedOrNil(t, o).(type) {
		case *rbacv1.Role:
			where := "fleets"
			if strings.HasSuffix(v.Name, "-control") {
				where = "own"
			}
			add(where, v.Rules)
		case *rbacv1.ClusterRole:
			if strings.HasSuffix(v.Name, "-edit") || strings.HasSuffix(v.Name, "-view") {
				continue // of users
			}
			add("everywhere", v.Rules)
		}
	}
	return out
}

func (g granted) allows(c cluster.Call) bool {
	here := g.where == "everywhere" || c.Own && g.where == "own" || !c.Own && !c.Everywhere && g.where == "fleets"
	resource := c.Resource
	if c.Subresource != "" {
		resource += "/" + c.Subresource
	}
	r := g.rule
	return here && slices.Contains(r.Verbs, c.Verb) &&
		(slices.Contains(r.APIGroups, c.Group) || slices.Contains(r.APIGroups, "*")) &&
		(slices.Contains(r.Resources, resource) || slices.Contains(r.Resources, "*/"+c.Subresource) && c.Subresource != "") &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, c.Name))
}

func all(string, string) bool { return true }

// everyCall is what a control plane may do, whatever its fleets ask for.
func everyCall() []cluster.Call {
	calls := cluster.Calls(cluster.Needs{Headroom: "buffer", Warm: "agent-sandbox", Targets: true, Consumers: true, Secrets: []string{"api-keys"}}, all)
	return append(calls, cluster.Calls(cluster.Needs{Headroom: "karpenter"}, all)...)
}

const everyRight = "rbac: {karpenter: true, scaleTargets: true, consumers: true}\nstore: {type: postgres, postgres: {existingSecret: db}}\n"

// TestEveryCallIsAllowed holds the chart's rules to what doctor knows that the
// control plane does.
func TestEveryCallIsAllowed(t *testing.T) {
	for _, values := range []string{everyRight, everyRight + "secrets: {names: [api-keys]}", everyRight + "fleets: {namespace: agents}", everyRight + "fleets: {allNamespaces: true}"} {
		rules := rules(t, rendered(t, values))
		for _, c := range everyCall() {
			if !slices.ContainsFunc(rules, func(g granted) bool { return g.allows(c) }) {
				t.Errorf("%q: %s may not %s", values, c.For, c)
			}
		}
	}
}

// TestWhatIsNotUsedIsNotGiven: a fleet with defaults gets by with the chart's
// defaults.
func TestWhatIsNotUsedIsNotGiven(t *testing.T) {
	none := func(group, _ string) bool { return group == "metrics.k8s.io" }
	rules := rules(t, rendered(t, "rbac: {capacityBuffers: false, agentSandbox: false}"))
	for _, c := range cluster.Calls(cluster.Needs{}, none) {
		if !slices.ContainsFunc(rules, func(g granted) bool { return g.allows(c) }) {
			t.Errorf("%s may not %s", c.For, c)
		}
	}
}

// TestNoRightIsSuperfluous: whatever the chart gives, the control plane uses.
func TestNoRightIsSuperfluous(t *testing.T) {
	calls := everyCall()
	for _, g := range rules(t, rendered(t, everyRight)) {
		for _, group := range g.rule.APIGroups {
			for _, resource := range g.rule.Resources {
				for _, verb := range g.rule.Verbs {
					one := granted{g.where, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}}
					used := slices.ContainsFunc(calls, one.allows)
					if !used && !(g.where == "own" && resource == "events") { // of the election, which doctor need not ask for
						t.Errorf("%s: %s %s of %q is used by nothing", g.where, verb, resource, group)
					}
				}
			}
		}
	}
}
