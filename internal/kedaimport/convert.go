package kedaimport

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Converted is one ScaledObject or ScaledJob as a Fleet.
type Converted struct {
	From  string          `json:"from"` // ScaledObject namespace/name
	Fleet *v1alpha1.Fleet `json:"-"`
	// YAML is the Fleet as a document, without defaults.
	YAML  string `json:"fleet"`
	Notes []Note `json:"notes"`
}

// Convert makes Fleets of what is in the files, in order. Credentials are looked
// for in the TriggerAuthentications of all of them. Errors wrap
// fleet.ErrInvalid: no YAML, no ScaledObject, or one without any queue that
// Muster could read. Documents of other kinds are left out, and named in others.
func Convert(files ...[]byte) (fleets []Converted, others []string, err error) {
	var scaled []map[string]any
	auth := authentications{}
	for _, src := range files {
		docs, err := decode(src)
		if err != nil {
			return nil, nil, err
		}
		for _, d := range docs {
			kind, _ := d["kind"].(string)
			namespace, name := named(d)
			switch kind {
			case "ScaledObject", "ScaledJob":
				scaled = append(scaled, d)
			case "TriggerAuthentication", "ClusterTriggerAuthentication":
				auth.put(kind, namespace, name, d)
			default:
				others = append(others, kind+" "+name)
			}
		}
	}
	if len(scaled) == 0 {
		return nil, others, fmt.Errorf("there is no ScaledObject and no ScaledJob: %w", fleet.ErrInvalid)
	}
	var errs []error
	for _, d := range scaled {
		c, err := convert(d, auth)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.From, err))
			continue
		}
		fleets = append(fleets, c)
	}
	return fleets, others, errors.Join(errs...)
}

func named(d map[string]any) (namespace, name string) {
	m := mapOf(d["metadata"])
	namespace, _ = m["namespace"].(string)
	name, _ = m["name"].(string)
	return namespace, name
}

func convert(d map[string]any, auth authentications) (Converted, error) {
	n := &notes{}
	root := &object{value: d, asked: map[string]bool{}, notes: n}
	kind := root.text("kind")
	root.skip("apiVersion", "status")
	namespace, name := named(d)
	c := Converted{From: strings.TrimPrefix(kind+" "+namespace+"/"+name, "/")}
	if namespace == "" {
		c.From = kind + " " + name
	}
	meta := root.sub("metadata")
	meta.skip("name", "namespace", "labels", "creationTimestamp", "generation", "resourceVersion", "uid", "managedFields", "finalizers", "ownerReferences", "selfLink")
	meta.left("belongs to KEDA and Kubernetes", "annotations")
	f := &v1alpha1.Fleet{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindFleet}
	f.Metadata.Name = fleetName(name)
	f.Spec.Mode = v1alpha1.ModeScale
	f.Spec.Templates = []v1alpha1.Template{{Name: "default"}}
	spec := root.sub("spec")
	bounds(spec, f)
	if kind == "ScaledJob" {
		job(spec)
	} else {
		scaledObject(spec)
	}
	if err := triggers(spec, f, auth, namespace); err != nil {
		return c, err
	}
	root.rest()
	n.add(Left, "spec", "Muster only says how many workers there should be until something asks: set spec.keda.listen, and make this fleet's plan the one trigger of the "+kind+" (type: external); see docs/keda.md")
	var err error
	c.Notes = n.sorted()
	c.Fleet, c.YAML, err = finish(f)
	return c, err
}

// fleetName makes a name of a fleet of one of Kubernetes, which may have dots and
// be longer.
func fleetName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	if len(s) > 63 {
		s = s[:63]
	}
	if s = strings.Trim(s, "-"); s == "" {
		return "imported"
	}
	return s
}

// bounds carries over how many workers there may be.
func bounds(spec *object, f *v1alpha1.Fleet) {
	r := &f.Spec.Capacity.Sandboxes
	low, lowSaid := spec.whole("minReplicaCount")
	high, highSaid := spec.whole("maxReplicaCount")
	if !highSaid {
		high = 100 // KEDA's default
		spec.notes.add(Changed, spec.at("maxReplicaCount"), "is not said, and 100 for KEDA then; so it is written into spec.capacity.sandboxes.max")
	}
	if high < 1 || high > 100_000 {
		spec.notes.add(Todo, spec.at("maxReplicaCount"), "is out of range; 100 was taken")
		high = 100
	}
	if lowSaid && (low < 0 || low > high) {
		spec.notes.add(Todo, spec.at("minReplicaCount"), "is out of range; 0 was taken")
		low = 0
	}
	r.Min, r.Max = low, high
}

func scaledObject(spec *object) {
	spec.left("the workload stays as it is, and goes on taking from the queue", "scaleTargetRef")
	spec.left("Muster reads all the time, and at once where the queue pushes", "pollingInterval")
	spec.left("Muster keeps workers as long as keeping is cheaper than starting anew: see spec.scaling", "cooldownPeriod", "initialCooldownPeriod")
	spec.left("Muster goes to spec.capacity.sandboxes.min when nothing waits", "idleReplicaCount")
	spec.left("while the queue cannot be read, Muster leaves the number of workers as it is", "fallback")
	a := spec.sub("advanced")
	a.left("what happens to the workload when it is no longer scaled is KEDA's", "restoreToOriginalReplicaCount")
	a.left("Muster decides how fast to grow and shrink by what it costs: see spec.scaling and spec.objective", "horizontalPodAutoscalerConfig")
	a.left("a fleet has one queue; a formula over several can be a query of type: prometheus", "scalingModifiers")
}

func job(spec *object) {
	spec.left("the job stays as it is, and goes on taking from the queue", "jobTargetRef", "envSourceContainerName", "successfulJobsHistoryLimit", "failedJobsHistoryLimit", "rollout", "rolloutStrategy")
	spec.left("Muster reads all the time, and at once where the queue pushes", "pollingInterval")
	spec.left("Muster counts workers, not jobs to start: one that works on a message goes on being counted", "scalingStrategy")
}

// triggers makes the one queue and the floors.
func triggers(spec *object, f *v1alpha1.Fleet, auth authentications, namespace string) error {
	var met []string
	for _, o := range spec.list("triggers") {
		kind := o.text("type")
		met = append(met, kind)
		o.skip("name")
		meta := o.sub("metadata")
		make, known := queues[kind]
		switch {
		case kind == "cron":
			if floor, ok := cron(meta, spec.notes); ok {
				f.Spec.Capacity.Floors = append(f.Spec.Capacity.Floors, floor)
			}
			o.left("a cron rule needs none", "authenticationRef")
		case known && f.Spec.Queue.Type == "":
			o.left("Muster does not use the autoscaler's arithmetic", "metricType", "useCachedMetrics")
			t := &trigger{kind: kind, meta: meta, notes: spec.notes, auth: auth.of(o.sub("authenticationRef"), namespace)}
			make(t, &f.Spec.Queue)
			t.unused()
		case known:
			spec.notes.add(Todo, o.path, kind+" is one more queue, and a fleet has one: make a fleet for each")
			ignore(o)
		case kind == "cpu" || kind == "memory":
			spec.notes.add(Left, o.path, kind+": Muster sizes by the tasks that wait, not by how busy workers are")
			ignore(o)
		default:
			spec.notes.add(Left, o.path, kind+" cannot be read by Muster; a query of type: prometheus, or a service with type: http may tell the same")
			ignore(o)
		}
	}
	if f.Spec.Queue.Type == "" {
		return fmt.Errorf("has no trigger that becomes a queue (%s); Muster reads %s: %w", strings.Join(slices.Compact(met), ", "), strings.Join(Kinds(), ", "), fleet.ErrInvalid)
	}
	return nil
}

// ignore leaves a trigger out of the notes: one on the whole is there.
func ignore(o *object) {
	for name := range o.value {
		o.asked[name] = true
	}
	for _, s := range o.subs {
		ignore(s)
	}
}

// finish writes the Fleet, and reads it as muster up would.
func finish(f *v1alpha1.Fleet) (*v1alpha1.Fleet, string, error) {
	b, err := yaml.Marshal(f)
	if err != nil {
		return nil, "", err
	}
	var v map[string]any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, "", err
	}
	prune(v)
	if b, err = yaml.Marshal(v); err != nil {
		return nil, "", err
	}
	parsed, err := v1alpha1.ParseFleet(b)
	if err != nil {
		return nil, "", fmt.Errorf("what comes of it is no Fleet: %w", err)
	}
	return parsed, string(b), nil
}

// prune takes empty objects away, which are fields that nobody set. An empty tls
// means something.
func prune(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			if prune(v); len(v) == 0 && k != "tls" {
				delete(m, k)
			}
		case []any:
			for _, item := range v {
				if sub, ok := item.(map[string]any); ok {
					prune(sub)
				}
			}
		}
	}
}
