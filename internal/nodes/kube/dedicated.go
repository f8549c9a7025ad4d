package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

var _ fleet.Dedication = (*Nodes)(nil)

// Dedicated implements fleet.Dedication.
func (n *Nodes) Dedicated() bool { return n.o.Dedicated }

// Trespasses implements fleet.Dedication. Pods of DaemonSets and of the node
// itself belong to it, and so does what Muster runs. A pod whose node has gone
// runs nowhere any more.
func (n *Nodes) Trespasses(ctx context.Context) ([]fleet.Trespass, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look for trespasses: %w", err)
	}
	if _, err := n.watch.at(n.o.key()); err != nil {
		return nil, fmt.Errorf("look for trespasses: %w", err)
	}
	out := []fleet.Trespass{}
	mine, there := map[string]bool{}, map[string]bool{}
	n.watch.nodes.each(func(m *machine) bool {
		there[m.key] = true
		if !n.mine(m) {
			return true
		}
		mine[m.key] = true
		if !m.tainted {
			out = append(out, fleet.Trespass{Kind: fleet.TrespassOpen, Node: fleet.NodeID(m.key), Workload: "it lacks the taint " + kube.TaintDedicated})
		}
		return true
	})
	n.watch.pods.each(func(p *pod) bool {
		if p.node == "" || p.over {
			return true
		}
		switch {
		case mine[p.node] && !p.ours && !p.daemon:
			out = append(out, fleet.Trespass{Kind: fleet.TrespassForeign, Node: fleet.NodeID(p.node), Workload: fmt.Sprintf("pod %s of %s", p.key, p.owner)})
		case there[p.node] && !mine[p.node] && p.ours && p.role == kube.RoleSandbox && p.fleet == n.o.key():
			out = append(out, fleet.Trespass{Kind: fleet.TrespassOutside, Node: fleet.NodeID(p.node), Workload: "sandbox " + cmp.Or(string(p.sandbox), p.key)})
		}
		return true
	})
	slices.SortFunc(out, func(a, b fleet.Trespass) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Workload, b.Workload))
	})
	return out, nil
}
