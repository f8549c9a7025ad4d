package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TemplateSpecs returns the templates parsed and defaulted, each with its
// revision.
func (f *Fleet) TemplateSpecs() ([]fleet.Template, error) {
	out := make([]fleet.Template, 0, len(f.Spec.Templates))
	for i, t := range f.Spec.Templates {
		t.Default()
		ft, err := t.parse()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at("spec.templates", i), err)
		}
		ft.Revision = revision(ft)
		out = append(out, ft)
	}
	return out, nil
}

// parse turns a defaulted template into the fleet's terms, but for the
// revision.
func (t Template) parse() (fleet.Template, error) {
	res, err := t.Resources.parse()
	if err != nil {
		return fleet.Template{}, err
	}
	times, err := t.Timeouts.parse()
	if err != nil {
		return fleet.Template{}, err
	}
	age, err := duration(t.MaxAge, 0)
	if err != nil {
		return fleet.Template{}, &fleet.FieldError{Field: "maxAge", Wrong: err.Error()}
	}
	out := fleet.Template{
		Name: t.Name, Runtime: fleet.Runtime(t.Runtime), Image: t.Image, Resources: res,
		Network: t.Network.parse(), Env: maps.Clone(t.Env), Repos: slices.Clone(t.Repos),
		Prepare: slices.Clone(t.Prepare), MaxAge: age, Timeouts: times, Min: t.Min,
	}
	for _, m := range t.Mounts {
		out.Mounts = append(out.Mounts, fleet.Mount(m))
	}
	return out, nil
}

func (r Resources) parse() (fleet.Resources, error) {
	out := fleet.Resources{Pids: int64(r.Pids), Files: int64(r.Files)}
	for _, q := range []struct {
		field string
		from  Quantity
		to    *int64
		parse func(Quantity) (int64, error)
	}{
		{"cpus", r.CPUs, &out.MilliCPU, Quantity.Milli},
		{"memory", r.Memory, &out.MemoryBytes, Quantity.Bytes},
		{"disk", r.Disk, &out.DiskBytes, Quantity.Bytes},
		{"log", r.Log, &out.LogBytes, Quantity.Bytes},
	} {
		n, err := q.parse(q.from)
		if err != nil {
			return out, &fleet.FieldError{Field: "resources." + q.field, Wrong: err.Error()}
		}
		*q.to = n
	}
	return out, nil
}

func (n Network) parse() fleet.Network {
	return fleet.Network{Mode: fleet.NetworkMode(n.Mode), Allow: slices.Clone(n.Allow), AllowPrivate: slices.Clone(n.AllowPrivate)}
}

func (t Timeouts) parse() (fleet.Timeouts, error) {
	var out fleet.Timeouts
	for _, d := range []struct {
		field, from string
		to          *time.Duration
	}{
		{"queue", t.Queue, &out.Queue}, {"startup", t.Startup, &out.Startup},
		{"run", t.Run, &out.Run}, {"idle", t.Idle, &out.Idle},
	} {
		v, err := duration(d.from, 0)
		if err != nil {
			return out, &fleet.FieldError{Field: "timeouts." + d.field, Wrong: err.Error()}
		}
		*d.to = v
	}
	return out, nil
}

// digest is a short name for a value: 16 hexadecimal digits of the SHA-256 of
// its JSON, in which Go writes maps sorted by key.
func digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // plain values always encode
		panic("digest: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// sandboxShape is what makes two sandboxes interchangeable. A log limit, an age, a
// minimum, the timeouts of a task and the template's name do not: they are
// not part of the sandbox.
type sandboxShape struct {
	Runtime   fleet.Runtime
	Image     string
	Resources fleet.Resources
	Network   fleet.Network
	Env       map[string]string
	Prepare   []string
	Mounts    []fleet.Mount
}

// revision is a digest of whatever shapes a sandbox.
func revision(t fleet.Template) string {
	s := sandboxShape{t.Runtime, t.Image, t.Resources, canonical(t.Network), t.Env, t.Prepare, t.Mounts}
	s.Resources.LogBytes = 0 // travels with the claim
	if len(s.Env) == 0 {
		s.Env = nil
	}
	return digest(s)
}

// canonical is a network in which the order of the lists does not matter.
func canonical(n fleet.Network) fleet.Network {
	sorted := func(s []string) []string {
		if len(s) == 0 {
			return nil
		}
		s = slices.Sorted(slices.Values(s))
		return slices.Compact(s)
	}
	return fleet.Network{Mode: n.Mode, Allow: sorted(n.Allow), AllowPrivate: sorted(n.AllowPrivate)}
}

// Variant is the template that a task's sandbox is made from: t itself, or t
// with the image, resources and network of the task and without warm stock.
func Variant(t fleet.Template, s fleet.TaskSpec) fleet.Template {
	if s.Pool == fleet.PoolKey(t.Name) {
		return t
	}
	v := t
	v.Image, v.Resources, v.Network = s.Image, s.Resources, s.Network
	v.Repos, v.Min = nil, 0
	v.Revision = revision(v)
	return v
}

// pool is the key of the pool for a task of template t with these; see
// fleet.PoolKey.
func pool(t fleet.Template, s fleet.TaskSpec) fleet.PoolKey {
	a, b := t.Resources, s.Resources
	a.LogBytes, b.LogBytes = 0, 0
	type difference struct {
		Image     string
		Resources fleet.Resources
		Network   fleet.Network
	}
	own := difference{t.Image, a, canonical(t.Network)}
	asked := difference{s.Image, b, canonical(s.Network)}
	if reflect.DeepEqual(asked, own) {
		return fleet.PoolKey(t.Name)
	}
	return fleet.PoolKey(t.Name + "~" + digest(asked)[:12])
}

// ResolveTask turns a task as written into the fleet's terms: it picks the
// template, fills in defaults and names the pool. Errors join a
// *fleet.FieldError for each problem, with paths inside the spec.
func (f *Fleet) ResolveTask(s TaskSpec, now time.Time) (fleet.TaskSpec, error) {
	return f.ResolveTaskAt("", s, now)
}

// ResolveTaskAt is ResolveTask with a prefix for the paths of problems.
func (f *Fleet) ResolveTaskAt(prefix string, s TaskSpec, now time.Time) (fleet.TaskSpec, error) {
	var ps problems
	s.validate(&ps, prefix)
	t, ok := f.choose(&ps, prefix, s)
	if !ok || len(ps.list) > 0 {
		return fleet.TaskSpec{}, ps.err()
	}
	out, err := resolve(t, s, now)
	if err != nil {
		return fleet.TaskSpec{}, err
	}
	if mode := out.Network.Mode; mode != fleet.NetworkProxy && s.Network != nil && len(s.Network.Allow)+len(s.Network.AllowPrivate) > 0 {
		ps.addf(sub(prefix, "network.allow"), "network.mode: proxy, or no list", "has no meaning with mode %s, which is the template's", mode)
		return fleet.TaskSpec{}, ps.err()
	}
	return out, nil
}

// choose picks the template: by name, else by repository, else the first.
func (f *Fleet) choose(ps *problems, prefix string, s TaskSpec) (Template, bool) {
	if len(f.Spec.Templates) == 0 {
		ps.addf(sub(prefix, "template"), "a fleet with templates", "the fleet has none")
		return Template{}, false
	}
	if s.Template != "" {
		t := f.Spec.template(s.Template)
		if t == nil {
			ps.addf(sub(prefix, "template"), list(f.Spec.templateNames()), "%q does not exist in this fleet", clip(s.Template))
			return Template{}, false
		}
		return *t, true
	}
	if s.Repo != nil {
		for _, t := range f.Spec.Templates {
			if slices.ContainsFunc(t.Repos, func(r string) bool { return sameRepo(r, s.Repo.URL) }) {
				return t, true
			}
		}
	}
	return f.Spec.Templates[0], true
}

// sameRepo compares URLs of repositories but for a final "/" or ".git".
func sameRepo(a, b string) bool {
	plain := func(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git") }
	return plain(a) == plain(b)
}

func resolve(t Template, s TaskSpec, now time.Time) (fleet.TaskSpec, error) {
	t.Default()
	ft, err := t.parse()
	if err != nil {
		return fleet.TaskSpec{}, err
	}
	out := fleet.TaskSpec{
		Name: s.Name, Labels: maps.Clone(s.Labels), Tenant: tenant(s.Labels), Template: t.Name,
		Prompt: s.Prompt, Command: slices.Clone(s.Command), Setup: slices.Clone(s.Setup),
		Env: maps.Clone(s.Env), Secrets: slices.Clone(s.Secrets), Priority: s.Priority,
		Artifacts: slices.Clone(s.Artifacts), Webhook: s.Webhook, IdempotencyKey: s.IdempotencyKey,
		Image: s.Image, Resources: ft.Resources, Network: ft.Network, Timeouts: ft.Timeouts,
	}
	or(&out.Image, ft.Image)
	out.Input = s.Input.parse()
	if s.Repo != nil {
		out.Repo = &fleet.Repo{URL: s.Repo.URL, Ref: s.Repo.Ref, Depth: depth(s.Repo.Depth)}
	}
	if s.Resources != nil {
		r := *s.Resources
		r.fill(t.Resources)
		if out.Resources, err = r.parse(); err != nil {
			return out, err
		}
	}
	if s.Network != nil {
		out.Network = s.Network.over(ft.Network)
	}
	if s.Timeouts != nil {
		r := *s.Timeouts
		r.fill(t.Timeouts)
		if out.Timeouts, err = r.parse(); err != nil {
			return out, err
		}
	}
	if s.Budget != nil {
		out.MaxMicroUSD = int64(math.Round(s.Budget.MaxUSD * 1e6))
	}
	if out.Retries, err = s.Retries.parse(); err != nil {
		return out, err
	}
	if out.NotBefore, err = s.notBefore(now); err != nil {
		return out, &fleet.FieldError{Field: "notBefore", Wrong: err.Error()}
	}
	out.Pool = pool(ft, out)
	return out, nil
}

// tenant is who a task belongs to, by its labels.
func tenant(labels map[string]string) fleet.TenantID {
	for _, l := range []string{"tenant", "team"} {
		if v := labels[l]; v != "" {
			return fleet.TenantID(v)
		}
	}
	return DefaultTenant
}

// depth is in the fleet's terms, where 0 is the full history.
func depth(d int) int {
	switch d {
	case 0:
		return 1
	case -1:
		return 0
	}
	return d
}

// over is a task's network over its template's: what is left out is the
// template's, and its lists go with its mode.
func (n Network) over(t fleet.Network) fleet.Network {
	out := n.parse()
	or(&out.Mode, t.Mode)
	if out.Mode != fleet.NetworkProxy || t.Mode != fleet.NetworkProxy {
		return out
	}
	if n.Allow == nil {
		out.Allow = slices.Clone(t.Allow)
	}
	if n.AllowPrivate == nil {
		out.AllowPrivate = slices.Clone(t.AllowPrivate)
	}
	return out
}

func (r *Retries) parse() (fleet.RetryPolicy, error) {
	p := fleet.RetryPolicy{Max: defaultRetries, Backoff: defaultBackoff}
	if r == nil {
		return p, nil
	}
	if r.Max != nil {
		p.Max = *r.Max
	}
	p.OnExit = r.OnExit
	d, err := duration(r.Backoff, defaultBackoff)
	if err != nil {
		return p, &fleet.FieldError{Field: "retries.backoff", Wrong: err.Error()}
	}
	p.Backoff = d
	return p, nil
}

// notBefore is when the task may start; zero where nothing is said.
func (s *TaskSpec) notBefore(now time.Time) (time.Time, error) {
	const year = 366 * day
	if s.NotBefore == "" {
		return time.Time{}, nil
	}
	if rest, ok := strings.CutPrefix(s.NotBefore, "+"); ok {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || d > year || strings.HasPrefix(rest, "+") {
			return time.Time{}, fmt.Errorf("%q is not a delay", clip(s.NotBefore))
		}
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s.NotBefore)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time", clip(s.NotBefore))
	}
	if !now.IsZero() && t.Sub(now) > year {
		return time.Time{}, fmt.Errorf("%s is more than a year away", s.NotBefore)
	}
	return t, nil
}
