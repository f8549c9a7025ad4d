package v1alpha1

import (
	"reflect"
	"slices"
	"strings"
)

// FromCluster makes a fleet of an object of a Kubernetes cluster: spec is its
// JSON. It is what ParseFleet does for a file, with what is different there:
// nodes.provider is kubernetes where nothing is said, and nothing may be named
// that is the control plane's own and not the namespace's, since who may write a
// Fleet is not who runs the control plane. Errors join a *fleet.FieldError for
// each problem.
func FromCluster(meta Metadata, spec []byte) (*Fleet, error) {
	f := &Fleet{APIVersion: APIVersion, Kind: KindFleet, Metadata: meta}
	var ps problems
	n, err := readJSON(spec, &ps)
	if err != nil {
		return nil, err
	}
	at := place{index: -1}
	inner := at.key("spec")
	decoder{&ps}.decode(n, reflect.ValueOf(&f.Spec).Elem(), &inner, anywhere)
	if !f.Spec.Follows() {
		or(&f.Spec.Nodes.Provider, ProviderKubernetes)
	}
	f.validate(&ps)
	f.validateInCluster(&ps)
	if err := ps.err(); err != nil {
		return nil, err
	}
	f.Default()
	f.eachCredential(func(_ string, c *Credential) {
		or(&c.Secret.Namespace, meta.Namespace)
	})
	return f, nil
}

// validateInCluster refuses what would reach beyond the fleet's namespace.
func (f *Fleet) validateInCluster(ps *problems) {
	s := &f.Spec
	if s.Nodes.Provider == ProviderHost {
		ps.addf("spec.nodes.provider", "kubernetes, or nothing", "is host, which is one machine")
	}
	for name, set := range map[string]bool{"dir": s.Secrets.Dir != "", "env": s.Secrets.Env} {
		if set {
			ps.addf("spec.secrets."+name, "spec.secrets.kubernetes, the name of a Secret in the fleet's namespace", "is the control plane's own, which a fleet in a cluster cannot read")
		}
	}
	f.eachCredential(func(field string, c *Credential) {
		switch {
		case c.Secret == nil:
			ps.addf(field, "secret: {name, key}, in the fleet's namespace", "is the control plane's own, which a fleet in a cluster cannot read")
		case c.Secret.Namespace != "" && f.Metadata.Namespace != "" && c.Secret.Namespace != f.Metadata.Namespace:
			ps.addf(field+".secret.namespace", f.Metadata.Namespace+", the fleet's own, or nothing", "%s is another namespace", clip(c.Secret.Namespace))
		}
	})
}

var credentialType = reflect.TypeFor[*Credential]()

// eachCredential calls f with every credential that the fleet names.
func (f *Fleet) eachCredential(call func(field string, c *Credential)) {
	var walk func(field string, v reflect.Value)
	walk = func(field string, v reflect.Value) {
		if v.Type() == credentialType {
			if c := v.Interface().(*Credential); c != nil {
				call(field, c)
			}
			return
		}
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(field, v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
				walk(sub(field, name), v.Field(i))
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(at(field, i), v.Index(i))
			}
		}
	}
	walk("spec", reflect.ValueOf(&f.Spec).Elem())
}

// CheckLocal says what of a fleet only a cluster has; nil: it can run on one
// machine.
func (f *Fleet) CheckLocal() error {
	var ps problems
	if f.Spec.Nodes.Provider == ProviderKubernetes {
		ps.addf("spec.nodes.provider", "host, or `muster serve --kubernetes`", "is kubernetes, and this is one machine")
	}
	if f.Spec.Secrets.Kubernetes != "" {
		ps.addf("spec.secrets.kubernetes", "spec.secrets.dir or spec.secrets.env", "names a Secret of a cluster, and this is one machine")
	}
	if f.Spec.HasConsumers() {
		ps.addf(fieldConsumers, "`muster serve --kubernetes`, or no spec.consumers", "are pods of a cluster, and this is one machine")
	}
	if len(f.Spec.Targets) > 0 {
		ps.addf("spec.targets", "`muster serve --kubernetes`, or no targets", "are objects of a cluster, and this is one machine")
	}
	return ps.err()
}

// MustBeRestarted tells whether a change of the fleet from f to g takes a new
// start of what works on it: where tasks come from, where sandboxes run, what is
// listened on, whether there are consumers (how many may change). Everything else
// can be changed while it runs.
func (f *Fleet) MustBeRestarted(g *Fleet) bool {
	fixed := func(s FleetSpec) FleetSpec {
		return FleetSpec{
			Mode: s.Mode, Queue: s.Queue, Nodes: s.Nodes, Secrets: s.Secrets, Webhooks: s.Webhooks,
			Workers: s.Workers, KEDA: s.KEDA, Targets: s.Targets, Tenants: shares(s.Tenants),
		}
	}
	a, b := fixed(f.Spec), fixed(g.Spec)
	if g.Spec.Follows() { // the size of a counted node follows from the templates
		a.Templates, b.Templates = f.Spec.Templates, g.Spec.Templates
	}
	return !reflect.DeepEqual(a, b) || f.Spec.HasConsumers() != g.Spec.HasConsumers()
}

// shares are tenants without their budgets, which change as the fleet runs.
func shares(all []Tenant) []Tenant {
	out := slices.Clone(all)
	for i := range out {
		out[i].Budget = nil
	}
	return out
}

// SameShares tells whether two fleets give their tenants the same.
func SameShares(a, b []Tenant) bool { return reflect.DeepEqual(shares(a), shares(b)) }
