package v1alpha1

// Bounds of consumers.
const (
	maxConsumers        = 1000
	defaultPerConsumer  = 500
	recommendedMinimum  = 2
	maxPerConsumer      = 10_000
	fieldConsumers      = "spec.consumers"
	consumersInKube     = "no spec.consumers, or spec.nodes.provider: kubernetes"
	consumersWantNumber = "replicas: 2, or minReplicas: 2 and maxReplicas"
)

// Consumers says how many processes carry the fleet's sandboxes: create them,
// hold their connections, lease and run the tasks in them. Without it the control
// plane's leader does so itself. In a cluster, with pods as sandboxes, the
// embedded queue, and the store postgres. See docs/kubernetes.md.
type Consumers struct {
	// Replicas is a fixed number of them. Two or more go on when one is lost.
	Replicas int `json:"replicas,omitempty" minimum:"1" maximum:"1000"`
	// MinReplicas and MaxReplicas let the number follow the load, in place of
	// Replicas. Default of MinReplicas: 2, or maxReplicas where that is less.
	MinReplicas int `json:"minReplicas,omitempty" minimum:"1" maximum:"1000"`
	MaxReplicas int `json:"maxReplicas,omitempty" minimum:"1" maximum:"1000"`
	// SandboxesPerReplica is the most sandboxes that one carries. Default 500.
	SandboxesPerReplica int `json:"sandboxesPerReplica,omitempty" minimum:"1" maximum:"10000"`
}

// HasConsumers tells whether processes of their own carry the fleet's sandboxes.
func (s *FleetSpec) HasConsumers() bool { return s.Consumers != nil }

// Bounds are the fewest and the most replicas; of one that is valid.
func (c *Consumers) Bounds() (least, most int) {
	if c.Replicas > 0 {
		return c.Replicas, c.Replicas
	}
	least, most = c.MinReplicas, c.MaxReplicas
	or(&least, min(recommendedMinimum, most))
	return least, most
}

func (c *Consumers) fill() {
	or(&c.SandboxesPerReplica, defaultPerConsumer)
	if c.Replicas == 0 {
		c.MinReplicas, _ = c.Bounds()
	}
}

func (s *FleetSpec) validateConsumers(ps *problems) {
	c := s.Consumers
	if c == nil {
		return
	}
	c.validate(ps)
	switch {
	case s.Follows():
		ps.addf(fieldConsumers, "mode: run, or no spec.consumers", "has no meaning with mode: %s, where others run the workers", s.Mode)
		return
	case s.Nodes.Provider != ProviderKubernetes:
		where := s.Nodes.Provider
		or(&where, ProviderHost)
		ps.addf(fieldConsumers, consumersInKube, "are pods of a cluster, and spec.nodes.provider is %s", clip(where))
	}
	if k := s.Nodes.Kubernetes; k != nil && k.Warm == WarmAgentSandbox {
		ps.addf("spec.nodes.kubernetes.warm", "pods, or no spec.consumers", "is agent-sandbox, whose pools one process sizes, and there are consumers")
	}
	if q := s.Queue.Type; q != "" && q != "embedded" {
		ps.addf("spec.queue.type", "embedded, or no spec.consumers", "is %s, whose messages one process holds, and there are consumers", clip(q))
	}
}

func (c *Consumers) validate(ps *problems) {
	for _, f := range []struct {
		name string
		n    int
		most int
	}{
		{"replicas", c.Replicas, maxConsumers}, {"minReplicas", c.MinReplicas, maxConsumers},
		{"maxReplicas", c.MaxReplicas, maxConsumers}, {"sandboxesPerReplica", c.SandboxesPerReplica, maxPerConsumer},
	} {
		ps.whole(sub(fieldConsumers, f.name), f.n, 1, f.most)
	}
	switch {
	case c.Replicas != 0 && (c.MinReplicas != 0 || c.MaxReplicas != 0):
		ps.addf(sub(fieldConsumers, "replicas"), "either replicas, or minReplicas and maxReplicas", "is given together with minReplicas or maxReplicas")
	case c.Replicas == 0 && c.MaxReplicas == 0 && c.MinReplicas != 0:
		ps.addf(sub(fieldConsumers, "maxReplicas"), "the most replicas there may be", "is missing, and minReplicas is given")
	case c.Replicas == 0 && c.MaxReplicas == 0:
		ps.addf(sub(fieldConsumers, "replicas"), consumersWantNumber, "is missing")
	case c.MaxReplicas != 0 && c.MinReplicas > c.MaxReplicas:
		ps.addf(sub(fieldConsumers, "minReplicas"), "at most maxReplicas", "%d is more than maxReplicas, %d", c.MinReplicas, c.MaxReplicas)
	}
}
