package scaler

import (
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"muster.dev/muster/internal/fleet"
)

// Target is the object that is driven.
type Target struct {
	APIVersion string // apps/v1
	Kind       string // Deployment
	Name       string
}

// String is kind/name.
func (t Target) String() string { return t.Kind + "/" + t.Name }

// Drives says which part of the plan the replicas are.
type Drives string

// The parts of a plan.
const (
	Workers Drives = "workers" // sandboxes, or the workers in their place
	Nodes   Drives = "nodes"
)

// Reports says what is made of workers that do not tell whether they are busy.
type Reports string

// The kinds of contract with the workers.
const (
	// ReportsOptional: who reports is protected, of the others as many may go as
	// the plan says.
	ReportsOptional Reports = "optional"
	// ReportsRequired: who does not report is busy.
	ReportsRequired Reports = "required"
	// ReportsOff: nobody is asked; the plan's count is written as it is.
	ReportsOff Reports = "off"
)

// Options is what a Scaler works with.
type Options struct {
	// Config reaches the API server. It is copied.
	Config    *rest.Config
	Namespace string
	Target    Target
	Fleet     string // its name, for events and conditions
	// Targets is what the fleet should be now; cheap, called every Every.
	Targets func() fleet.Targets
	Drives  Drives // default Workers
	// Pool is the one whose sandboxes count; empty: all. Of no meaning with Nodes.
	Pool fleet.PoolKey
	// PerReplica is how many sandboxes (or nodes) one replica stands for; default 1.
	PerReplica int
	// Min and Max bound what is written; Max 0: no bound but the plan's.
	Min, Max int
	// Reports is the contract with the workers; default ReportsOptional, and
	// ReportsOff with Nodes.
	Reports Reports

	Logger *slog.Logger     // default: discard
	Clock  func() time.Time // default: time.Now
	// Every is how often the targets are looked at; default 25 ms.
	Every time.Duration
	// Resync is how often /scale is read though the targets stay; default 5 s.
	Resync time.Duration
	// Stale is the age from which targets count as unknown; default 30 s.
	Stale time.Duration
	// Settle is how long after the start of Run nothing is scaled in, since a
	// planner that has just started has seen little; default 30 s, negative: 0.
	Settle time.Duration
}

func (o *Options) complete() error {
	if err := o.check(); err != nil {
		return err
	}
	if o.Drives == "" {
		o.Drives = Workers
	}
	if o.Reports == "" {
		o.Reports = ReportsOptional
		if o.Drives == Nodes {
			o.Reports = ReportsOff
		}
	}
	o.PerReplica = max(1, o.PerReplica)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.Every, 25 * time.Millisecond}, {&o.Resync, 5 * time.Second}, {&o.Stale, 30 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Settle == 0 {
		o.Settle = 30 * time.Second
	}
	return nil
}

// check names what a user can have got wrong.
func (o *Options) check() error {
	if o.Targets == nil || o.Namespace == "" {
		return fmt.Errorf("scaler: namespace and targets are needed: %w", fleet.ErrInvalid)
	}
	switch {
	case o.Target.Name == "":
		return &fleet.FieldError{Field: "target.name", Wrong: "is empty", Right: "the name of an object in namespace " + o.Namespace}
	case o.Target.Kind == "":
		return &fleet.FieldError{Field: "target.kind", Wrong: "is empty", Right: "a kind with /scale, such as Deployment"}
	case o.Min < 0:
		return &fleet.FieldError{Field: "min", Wrong: fmt.Sprintf("%d is negative", o.Min), Right: "0 or more"}
	case o.Max != 0 && o.Max < o.Min:
		return &fleet.FieldError{Field: "max", Wrong: fmt.Sprintf("%d is less than min, %d", o.Max, o.Min), Right: "min or more, or 0 for no bound"}
	case o.PerReplica < 0:
		return &fleet.FieldError{Field: "perReplica", Wrong: fmt.Sprintf("%d is negative", o.PerReplica), Right: "1 or more"}
	}
	if gv, err := schema.ParseGroupVersion(o.Target.APIVersion); err != nil || gv.Version == "" {
		return &fleet.FieldError{Field: "target.apiVersion", Wrong: fmt.Sprintf("%q is no API version", o.Target.APIVersion), Right: "group/version, such as apps/v1"}
	}
	switch o.Drives {
	case "", Workers, Nodes:
	default:
		return &fleet.FieldError{Field: "drives", Wrong: fmt.Sprintf("%q is unknown", o.Drives), Right: "workers or nodes"}
	}
	switch o.Reports {
	case "", ReportsOptional, ReportsRequired, ReportsOff:
	default:
		return &fleet.FieldError{Field: "reports", Wrong: fmt.Sprintf("%q is unknown", o.Reports), Right: "optional, required or off"}
	}
	return nil
}

// want is how many replicas the targets come to. It is a function of the
// targets alone: what there is has no part in it.
func (o *Options) want(t *fleet.Targets) int {
	n := 0
	if o.Drives == Nodes {
		n = t.Nodes
	} else {
		for i := range t.Pools {
			if p := &t.Pools[i]; o.Pool == "" || p.Pool == o.Pool {
				// What runs counts whatever the plan says: it is there.
				n += max(p.Desired, p.InFlight)
			}
		}
	}
	n = max(o.Min, (n+o.PerReplica-1)/o.PerReplica)
	if o.Max > 0 {
		n = min(n, o.Max)
	}
	return n
}
