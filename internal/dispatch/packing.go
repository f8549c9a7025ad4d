package dispatch

import "muster.dev/muster/internal/fleet"

// Packing counts the sandboxes on each node, in one pass and without copies:
// it is asked for each second by everybody who looks at the fleet.
func (r *Registry) Packing() map[fleet.NodeID]fleet.Packing {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[fleet.NodeID]fleet.Packing{}
	for _, e := range r.boxes {
		p := out[e.box.Spec.Node]
		switch e.box.State {
		case fleet.SandboxClaimed:
			p.Running++
		case fleet.SandboxReady:
			p.Ready++
		case fleet.SandboxStarting:
			p.Starting++
		default:
			p.Draining++
		}
		out[e.box.Spec.Node] = p
	}
	return out
}
