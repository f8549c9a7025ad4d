package v1alpha1

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// FleetView is the fleet as the API shows it: what there is, what is wanted
// and why. Durations are seconds.
type FleetView struct {
	Name             string           `json:"name"`
	At               time.Time        `json:"at"`
	Started          time.Time        `json:"started,omitzero" doc:"Of the control plane"`
	Sentence         string           `json:"sentence" doc:"The binding constraint in words"`
	Consumers        int              `json:"consumers" doc:"Desired dispatcher slots"`
	ConsumersBusy    int              `json:"consumersBusy"`
	Backlog          int              `json:"backlog"`
	Delayed          int              `json:"delayed"`
	InFlight         int              `json:"inFlight"`
	Dead             int              `json:"dead"`
	OldestAgeSeconds float64          `json:"oldestAgeSeconds"`
	SignalsAsOf      time.Time        `json:"signalsAsOf,omitzero"`
	SignalsError     string           `json:"signalsError,omitempty" doc:"The queue could not be read; the numbers are the last known ones"`
	Queues           []QueueView      `json:"queues" doc:"Each queue that tasks come from"`
	Start            StartView        `json:"start"`
	Reaction         FleetReaction    `json:"reaction"`
	Pools            []PoolView       `json:"pools"`
	Nodes            []fleet.NodeView `json:"nodes"`
	NodeHourUSD      float64          `json:"nodeHourUSD,omitempty"`
	// Budgets are left out where there are none.
	Budgets []fleet.BudgetView `json:"budgets,omitempty" doc:"How the budgets are kept, the fleet's first"`
	// Dedication is left out where nodes are not meant for agents alone.
	Dedication *fleet.DedicationView `json:"dedication,omitempty" doc:"Whether agents share no machine with anything else, as last looked"`
}

// StartView is how long tasks waited from submission to their first
// instruction in the last hour, beside the objective.
type StartView struct {
	P50Seconds       float64 `json:"p50Seconds"`
	P99Seconds       float64 `json:"p99Seconds"`
	ObjectiveSeconds float64 `json:"objectiveSeconds" doc:"For the 99th percentile"`
}

// FleetReaction is how long scaling out took lately, from a task that finds no
// sandbox to the first such task's first instruction, beside the promise. GET
// /v1/lead-times has the same stage by stage.
type FleetReaction struct {
	fleet.ScaleOut
	WithinSeconds float64 `json:"withinSeconds" doc:"The promise: spec.objective.reactWithin"`
}

// Within is spec.objective.reactWithin of a checked fleet.
func (f *Fleet) Within() time.Duration {
	within, err := duration(f.Spec.Objective.ReactWithin, defaultReactWithin)
	if err != nil { // checked before
		return defaultReactWithin
	}
	return within
}

// QueueView is the last good reading of one queue.
type QueueView struct {
	Name             string    `json:"name"`
	AsOf             time.Time `json:"asOf,omitzero"`
	Error            string    `json:"error,omitempty" doc:"Why it could not be read since"`
	Backlog          int       `json:"backlog"`
	Delayed          int       `json:"delayed"`
	InFlight         int       `json:"inFlight"`
	Dead             int       `json:"dead"`
	OldestAgeSeconds float64   `json:"oldestAgeSeconds"`
}

// PoolView is one pool of interchangeable sandboxes.
type PoolView struct {
	Pool             fleet.PoolKey `json:"pool"`
	Template         string        `json:"template"`
	Backlog          int           `json:"backlog"`
	Delayed          int           `json:"delayed"`
	InFlight         int           `json:"inFlight"`
	OldestAgeSeconds float64       `json:"oldestAgeSeconds"`
	ArrivalRate      float64       `json:"arrivalRate" doc:"Tasks a second, recent"`
	Desired          int           `json:"desired" doc:"Sandboxes, busy ones included"`
	WarmTarget       int           `json:"warmTarget"`
	Ready            int           `json:"ready"`
	Starting         int           `json:"starting"`
	Running          int           `json:"running"`
	Draining         int           `json:"draining"`
	StartLead        LeadView      `json:"startLead"`
	// TimeToEmptySeconds is absent while the pool is not being depleted.
	TimeToEmptySeconds *float64    `json:"timeToEmptySeconds,omitempty" doc:"How long the warm pool lasts at the present rate; absent while it is not being depleted"`
	Breaker            BreakerView `json:"breaker"`
	Reason             string      `json:"reason"`
	Bound              string      `json:"bound,omitempty" doc:"The constraint that binds"`
}

// LeadView is a measured distribution of lead times.
type LeadView struct {
	P50Seconds float64 `json:"p50Seconds"`
	P95Seconds float64 `json:"p95Seconds"`
	P99Seconds float64 `json:"p99Seconds"`
	Samples    int     `json:"samples" doc:"0: the figures are assumed, not measured"`
}

// BreakerView tells whether starts of a template are held back.
type BreakerView struct {
	Open     bool      `json:"open"`
	Failures int       `json:"failures,omitempty" doc:"In a row"`
	RetryAt  time.Time `json:"retryAt,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

// NewFleetView shows a fleet beside the promise of its checked specification.
func NewFleetView(v fleet.View, f *Fleet) FleetView {
	out := FleetView{
		Name: v.Name, At: v.At, Started: v.Started, Sentence: v.Sentence,
		Consumers: v.Consumers, ConsumersBusy: v.ConsumersBusy,
		Backlog: v.Backlog, Delayed: v.Delayed, InFlight: v.InFlight, Dead: v.Dead,
		OldestAgeSeconds: v.OldestAge.Seconds(), SignalsAsOf: v.SignalsAsOf, SignalsError: v.SignalsError,
		Start: StartView{
			P50Seconds: v.StartP50.Seconds(), P99Seconds: v.StartP99.Seconds(), ObjectiveSeconds: v.ObjectiveP99.Seconds(),
		},
		Reaction: FleetReaction{ScaleOut: v.ScaleOut, WithinSeconds: f.Within().Seconds()},
		Pools:    make([]PoolView, 0, len(v.Pools)), Nodes: nonNil(v.Nodes),
		NodeHourUSD: float64(v.NodeHourMicroUSD) / 1e6, Dedication: v.Dedication,
	}
	out.Queues = make([]QueueView, 0, len(v.Queues))
	for _, q := range v.Queues {
		out.Queues = append(out.Queues, QueueView{
			Name: q.Name, AsOf: q.AsOf, Error: q.Error, Backlog: q.Backlog, Delayed: q.Delayed, InFlight: q.InFlight, Dead: q.Dead,
			OldestAgeSeconds: q.OldestAge.Seconds(),
		})
	}
	for _, p := range v.Pools {
		out.Pools = append(out.Pools, newPoolView(p))
	}
	return out
}

func newPoolView(p fleet.PoolView) PoolView {
	v := PoolView{
		Pool: p.Pool, Template: p.Template, Backlog: p.Backlog, Delayed: p.Delayed, InFlight: p.InFlight,
		OldestAgeSeconds: p.OldestAge.Seconds(), ArrivalRate: p.ArrivalRate,
		Desired: p.Desired, WarmTarget: p.WarmTarget, Ready: p.Ready, Starting: p.Starting,
		Running: p.Running, Draining: p.Draining,
		StartLead: LeadView{
			P50Seconds: p.StartLead.P50.Seconds(), P95Seconds: p.StartLead.P95.Seconds(),
			P99Seconds: p.StartLead.P99.Seconds(), Samples: p.StartLead.Samples,
		},
		Breaker: BreakerView{
			Open: p.Breaker.Open, Failures: p.Breaker.Failures, RetryAt: p.Breaker.RetryAt, Reason: p.Breaker.Reason,
		},
		Reason: p.Reason, Bound: p.Bound,
	}
	if p.TimeToEmpty >= 0 {
		s := p.TimeToEmpty.Seconds()
		v.TimeToEmptySeconds = &s
	}
	return v
}

// FleetSeries is the fleet over time, oldest first.
type FleetSeries struct {
	Since       time.Time    `json:"since"`
	Until       time.Time    `json:"until"`
	StepSeconds float64      `json:"stepSeconds"`
	Points      []FleetPoint `json:"points"`
}

// FleetPoint is the fleet at one journaled decision: what there was, and what
// was decided to be wanted.
type FleetPoint struct {
	At           time.Time `json:"at"`
	Decision     int64     `json:"decision" doc:"Its seq; GET /v1/decisions/{seq} shows it whole"`
	Backlog      int       `json:"backlog"`
	InFlight     int       `json:"inFlight"`
	Consumers    int       `json:"consumers" doc:"Desired dispatcher slots"`
	Desired      int       `json:"desired" doc:"Sandboxes, busy ones included"`
	WarmTarget   int       `json:"warmTarget"`
	Floor        int       `json:"floor" doc:"Warm sandboxes that open floors of the calendar keep at least"`
	Ready        int       `json:"ready"`
	Starting     int       `json:"starting"`
	Running      int       `json:"running"`
	Draining     int       `json:"draining"`
	Nodes        int       `json:"nodes" doc:"Booting ones included"`
	NodesBooting int       `json:"nodesBooting"`
	NodesDesired int       `json:"nodesDesired"`
	Slots        int       `json:"slots" doc:"Sandboxes that the nodes take at most"`
}
