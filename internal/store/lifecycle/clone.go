package lifecycle

import (
	"maps"
	"slices"

	"muster.dev/muster/internal/fleet"
)

// CloneTask copies a record with everything it refers to, so that whoever changes
// the one changes nothing in the other.
func CloneTask(t fleet.Task) fleet.Task {
	s := &t.Spec
	s.Labels, s.Env = maps.Clone(s.Labels), maps.Clone(s.Env)
	s.Command, s.Setup = slices.Clone(s.Command), slices.Clone(s.Setup)
	s.Secrets, s.Artifacts = slices.Clone(s.Secrets), slices.Clone(s.Artifacts)
	s.Network = cloneNetwork(s.Network)
	if s.Repo != nil {
		r := *s.Repo
		s.Repo = &r
	}
	if s.Input != nil {
		in := *s.Input
		in.Data = slices.Clone(in.Data)
		s.Input = &in
	}
	if s.Origin != nil {
		o := *s.Origin
		s.Origin = &o
	}
	t.Result.Artifacts = slices.Clone(t.Result.Artifacts)
	if t.Result.Model != nil {
		m := *t.Result.Model
		t.Result.Model = &m
	}
	return t
}

func cloneNetwork(n fleet.Network) fleet.Network {
	n.Allow, n.AllowPrivate = slices.Clone(n.Allow), slices.Clone(n.AllowPrivate)
	return n
}

// CloneSandbox copies a record with everything it refers to, so that whoever changes
// the one changes nothing in the other.
func CloneSandbox(s fleet.Sandbox) fleet.Sandbox {
	s.Spec.Env = maps.Clone(s.Spec.Env)
	s.Spec.Prepare, s.Spec.Mounts = slices.Clone(s.Spec.Prepare), slices.Clone(s.Spec.Mounts)
	s.Spec.Network = cloneNetwork(s.Spec.Network)
	s.Isolation.Capabilities = slices.Clone(s.Isolation.Capabilities)
	s.Isolation.Lost = slices.Clone(s.Isolation.Lost)
	return s
}

// CloneEvent copies a record with everything it refers to, so that whoever changes
// the one changes nothing in the other.
func CloneEvent(e fleet.Event) fleet.Event {
	e.Numbers = maps.Clone(e.Numbers)
	return e
}

// CloneDecision copies a record with everything it refers to, so that whoever changes
// the one changes nothing in the other.
func CloneDecision(d fleet.DecisionRecord) fleet.DecisionRecord {
	d.Observation, d.Plan, d.State = slices.Clone(d.Observation), slices.Clone(d.Plan), slices.Clone(d.State)
	return d
}

// CloneRevision copies a record with everything it refers to, so that whoever changes
// the one changes nothing in the other.
func CloneRevision(r fleet.Revision) fleet.Revision {
	r.Spec = slices.Clone(r.Spec)
	return r
}
