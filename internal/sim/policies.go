package sim

import (
	"fmt"
	"slices"
	"strings"
)

// policy is a row of the table of policies.
type policy struct {
	name    string
	about   string
	eager   bool // decides after every event, not only when it wakes
	direct  bool // acts by name; see World.reconcile
	forever bool // empty nodes stay
	make    func(c *Config, s *Survey) (Sizer, error)
}

// Clairvoyant is the name of the lower bound, which is computed, not run.
const Clairvoyant = "clairvoyant"

var policies = []policy{
	{name: "muster", about: "the planner that runs the fleet, unchanged", eager: true, direct: true, make: newMuster},
	{name: "fixed", about: "nodes for the peak of the window, always", eager: true, forever: true,
		make: func(c *Config, s *Survey) (Sizer, error) {
			if c.FixedNodes > 0 {
				return fixed{c.FixedNodes}, nil
			}
			return fixed{nodesFor(s.Peak, c)}, nil
		}},
	{name: "fixed-p99", about: "nodes for the 99th percentile of demand, always", eager: true, forever: true,
		make: func(c *Config, s *Survey) (Sizer, error) { return fixed{nodesFor(s.P99, c)}, nil }},
	{name: "keda", about: "KEDA: poll 30 s, cooldown 300 s, HPA sync 15 s",
		make: func(*Config, *Survey) (Sizer, error) { return &keda{}, nil }},
	{name: "hpa", about: "HPA: sync 15 s, tolerance 0.1, stabilization 300 s",
		make: func(*Config, *Survey) (Sizer, error) { return &hpa{}, nil }},
	{name: "kpa", about: "Knative: stable 60 s, panic 6 s at 200 %, utilization 70 %",
		make: func(*Config, *Survey) (Sizer, error) { return &kpa{}, nil }},
	{name: "reactive", about: "a sandbox for each task when it comes, no spare", eager: true,
		make: func(*Config, *Survey) (Sizer, error) { return reactive{}, nil }},
	{name: "schedule", about: "hour-of-week 95th percentile, reactive above", eager: true,
		make: func(*Config, *Survey) (Sizer, error) { return &schedule{}, nil }},
	{name: Clairvoyant, about: "lower bound: knows the future, no task waits"},
}

func nodesFor(tasks int, c *Config) int {
	return max(1, (tasks+c.Model.Slots-1)/c.Model.Slots)
}

// Names lists the policies in the order they are shown.
func Names() []string {
	var out []string
	for _, p := range policies {
		out = append(out, p.name)
	}
	return out
}

// About says in a few words what a policy is; "" of an unknown one.
func About(name string) string {
	if p, err := policyOf(name); err == nil {
		return p.about
	}
	return ""
}

func policyOf(name string) (*policy, error) {
	i := slices.IndexFunc(policies, func(p policy) bool { return p.name == name })
	if i < 0 {
		return nil, fmt.Errorf("policy %q is unknown; want %s", name, strings.Join(Names(), ", "))
	}
	return &policies[i], nil
}
