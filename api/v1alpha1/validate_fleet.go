package v1alpha1

import (
	"errors"
	"strings"
	"time"

	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/fleet"
)

// Validate checks a fleet; fields left out count as their defaults. The error
// joins a *fleet.FieldError for each problem.
func (f *Fleet) Validate() error {
	var ps problems
	f.validate(&ps)
	return ps.err()
}

func header(ps *problems, apiVersion, kind, want string) {
	if apiVersion == "" {
		ps.addf("apiVersion", APIVersion, "is missing")
	} else if apiVersion != APIVersion {
		ps.addf("apiVersion", APIVersion, "%q is unknown", clip(apiVersion))
	}
	if kind != want {
		ps.addf("kind", want, "%q is unknown", clip(kind))
	}
}

func (f *Fleet) validate(ps *problems) {
	header(ps, f.APIVersion, f.Kind, KindFleet)
	ps.name("metadata.name", f.Metadata.Name)
	if f.Metadata.Namespace != "" {
		ps.name("metadata.namespace", f.Metadata.Namespace)
	}
	ps.labels("metadata.labels", f.Metadata.Labels)
	s := &f.Spec
	s.Queue.validate(ps, "spec.queue")
	s.validateTemplates(ps)
	s.validateCapacity(ps)
	ps.duration("spec.objective.startP99", s.Objective.StartP99, time.Millisecond, time.Hour, "")
	ps.duration("spec.objective.reactWithin", s.Objective.ReactWithin, time.Millisecond, 24*time.Hour, "")
	s.Scaling.validate(ps)
	s.validateNodes(ps)
	s.validateConsumers(ps)
	s.validateCost(ps)
	s.validateTenants(ps)
	s.validateSecrets(ps)
	s.validateWebhooks(ps)
	ps.duration("spec.retention.tasks", s.Retention.Tasks, time.Minute, 3660*day, "ever")
}

func (s *FleetSpec) validateTemplates(ps *problems) {
	if len(s.Templates) == 0 {
		ps.addf("spec.templates", "at least one, such as [{name: default}]", "is missing")
	}
	if len(s.Templates) > 1000 {
		ps.addf("spec.templates", "at most 1000", "has %d", len(s.Templates))
		return
	}
	names, repos := map[string]int{}, map[string]int{}
	for i := range s.Templates {
		t := &s.Templates[i]
		field := at("spec.templates", i)
		t.validate(ps, field, s.Nodes.Provider)
		if first, dup := names[t.Name]; dup && t.Name != "" {
			ps.addf(sub(field, "name"), "another name", "%q is the name of %s, too", clip(t.Name), at("spec.templates", first))
		} else {
			names[t.Name] = i
		}
		for j, r := range t.Repos {
			if first, dup := repos[r]; dup && first != i {
				ps.addf(at(sub(field, "repos"), j), "each repository in one template", "%s is prepared for it, too", at("spec.templates", first))
			}
			repos[r] = i
		}
	}
}

func (t *Template) validate(ps *problems, field, provider string) {
	ps.name(sub(field, "name"), t.Name)
	ps.image(sub(field, "image"), t.Image)
	t.validatePlace(ps, field, provider)
	t.Resources.validate(ps, sub(field, "resources"))
	mode := t.Network.Mode
	or(&mode, "none")
	t.Network.validate(ps, sub(field, "network"), mode)
	ps.env(sub(field, "env"), t.Env)
	ps.payload(field, t.Env, t.Prepare)
	for i, r := range t.Repos {
		ps.repoURL(at(sub(field, "repos"), i), r)
	}
	ps.words(sub(field, "prepare"), t.Prepare, false)
	targets := map[string]int{}
	for i, m := range t.Mounts {
		m.validate(ps, at(sub(field, "mounts"), i))
		if first, dup := targets[m.Target]; dup && m.Target != "" {
			ps.addf(at(sub(field, "mounts"), i)+".target", "another path", "%s is the target of %s, too", clip(m.Target), at("mounts", first))
		}
		targets[m.Target] = i
	}
	ps.duration(sub(field, "maxAge"), t.MaxAge, time.Minute, 366*day, "never")
	t.Timeouts.validate(ps, sub(field, "timeouts"))
	if t.Min < 0 {
		ps.addf(sub(field, "min"), "0 or more", "%d is negative", t.Min)
	}
}

func (s *FleetSpec) validateCapacity(ps *problems) {
	r := s.Capacity.Sandboxes
	ps.whole("spec.capacity.sandboxes.max", r.Max, 1, 100_000)
	or(&r.Max, defaultMaxSandboxes)
	switch {
	case r.Min < 0:
		ps.addf("spec.capacity.sandboxes.min", "0 or more", "%d is negative", r.Min)
	case r.Max > 0 && r.Min > r.Max:
		ps.addf("spec.capacity.sandboxes.min", "at most max", "%d is more than max, %d", r.Min, r.Max)
	}
	sum := 0
	for i, t := range s.Templates {
		if sum += max(0, t.Min); r.Max > 0 && sum > r.Max {
			ps.addf(at("spec.templates", i)+".min", "minimums that fit, or a larger max", "the templates' minimums add up to %d, more than capacity.sandboxes.max, %d", sum, r.Max)
			break
		}
	}
	if len(s.Capacity.Floors) > 1000 {
		ps.addf("spec.capacity.floors", "at most 1000", "has %d", len(s.Capacity.Floors))
		return
	}
	for i, f := range s.Capacity.Floors {
		s.validateFloor(ps, at("spec.capacity.floors", i), f, r.Max)
	}
}

func (s *FleetSpec) validateFloor(ps *problems, field string, f Floor, most int) {
	ps.rule(field, f.Cron, f.Timezone)
	if f.For == "" {
		ps.addf(sub(field, "for"), "a duration such as 10h", "is missing")
	}
	ps.duration(sub(field, "for"), f.For, time.Minute, 31*day, "")
	switch {
	case f.Min < 1:
		ps.addf(sub(field, "min"), "at least 1", "%d makes no floor", f.Min)
	case most > 0 && f.Min > most:
		ps.addf(sub(field, "min"), "at most that, or a larger max", "%d is more than capacity.sandboxes.max, %d", f.Min, most)
	}
	if f.Template != "" && s.template(f.Template) == nil {
		ps.addf(sub(field, "template"), list(s.templateNames()), "%q does not exist", clip(f.Template))
	}
}

// rule checks the cron expression and time zone of the object at field.
func (ps *problems) rule(field, cron, zone string) {
	if cron == "" {
		ps.addf(sub(field, "cron"), `five fields such as "0 8 * * MON"`, "is missing")
		return
	}
	_, err := calendar.Parse(cron, zone)
	var fe *fleet.FieldError
	switch {
	case errors.As(err, &fe):
		ps.addf(sub(field, fe.Field), fe.Right, "%s", fe.Wrong)
	case err != nil:
		ps.addf(sub(field, "cron"), "", "%s", err)
	}
}

func (s *Scaling) validate(ps *problems) {
	ps.real("spec.scaling.lateShare", s.LateShare, 0.0001, 0.5)
	ps.real("spec.scaling.latePriceMax", s.LatePriceMax, 50, 100_000)
	ps.real("spec.scaling.keepFactor", s.KeepFactor, 0.1, 100)
	ps.real("spec.scaling.warmQuantile", s.WarmQuantile, 0.5, 0.9999)
	ps.duration("spec.scaling.holdWarm", s.HoldWarm, time.Second, day, "")
}

func (s *FleetSpec) validateNodes(ps *problems) {
	s.validateMode(ps)
	s.validateKubernetes(ps)
	if q := s.Nodes.ReserveCPUs; q != "" {
		if n, err := q.Milli(); err != nil {
			ps.addf("spec.nodes.reserveCPUs", "cores such as 0, 1 or 500m", "%s", err)
		} else if n < 0 || n > maxMilliCPU {
			ps.addf("spec.nodes.reserveCPUs", "from 0 to 1024", "%s is not possible", q)
		}
	}
	ps.size("spec.nodes.reserveMemory", s.Nodes.ReserveMemory, 0, maxBytes)
	ps.whole("spec.nodes.slots", s.Nodes.Slots, 1, 100_000)
	ps.real("spec.nodes.overcommitCPU", s.Nodes.OvercommitCPU, 0.1, 1000)
	ps.real("spec.nodes.overcommitMemory", s.Nodes.OvercommitMemory, 0.1, 100)
}

func (s *FleetSpec) validateTenants(ps *problems) {
	names := map[string]int{}
	if len(s.Tenants) > 1000 {
		ps.addf("spec.tenants", "at most 1000", "has %d", len(s.Tenants))
		return
	}
	for i, t := range s.Tenants {
		field := at("spec.tenants", i)
		if t.Name == "" {
			ps.addf(sub(field, "name"), `the value of the tasks' label "tenant" or "team"`, "is missing")
		}
		ps.labels(field, map[string]string{"name": t.Name})
		if first, dup := names[t.Name]; dup && t.Name != "" {
			ps.addf(sub(field, "name"), "another name", "%q is the name of %s, too", clip(t.Name), at("spec.tenants", first))
		} else {
			names[t.Name] = i
		}
		ps.real(sub(field, "weight"), t.Weight, 0.001, 1e6)
		if t.MaxRunning < 0 {
			ps.addf(sub(field, "maxRunning"), "0 for no bound, or more", "%d is negative", t.MaxRunning)
		}
	}
}

func (s *FleetSpec) template(name string) *Template {
	for i := range s.Templates {
		if s.Templates[i].Name == name {
			return &s.Templates[i]
		}
	}
	return nil
}

func (s *FleetSpec) templateNames() []string {
	names := make([]string, 0, len(s.Templates))
	for _, t := range s.Templates {
		names = append(names, clip(t.Name))
		if len(names) == 10 {
			break
		}
	}
	return names
}

// payload bounds what travels with a task or a template in all.
func (ps *problems) payload(field string, env map[string]string, texts ...[]string) {
	n := 0
	for k, v := range env {
		n += len(k) + len(v) + 2
	}
	for _, ts := range texts {
		for _, t := range ts {
			n += len(t) + 1
		}
	}
	if n > maxPayload {
		ps.addf(strings.TrimSuffix(field, "."), "at most 1048576 (1 MiB); put more into a file or the repository", "prompt, input, env and commands have %d bytes together", n)
	}
}
