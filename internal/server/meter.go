package server

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster.dev/muster/internal/fleet"
)

// Meter counts what a fleet does, as it is told: it is a dispatch.Observer and a
// fleet.Meter, and hears of the store, the ledger and the webhooks. Its labels
// are bounded: words of fixed sets, templates and tenants, of both of which only
// so many are told apart. It exists apart from the Server, which needs the
// engine that reports to it. Its methods do not block.
type Meter struct {
	settled  *prometheus.CounterVec
	starts   *prometheus.CounterVec
	start    *prometheus.HistogramVec
	late     prometheus.Counter
	run      prometheus.Histogram
	phase    *prometheus.HistogramVec
	reaction *prometheus.HistogramVec

	decisions *prometheus.CounterVec
	why       *prometheus.CounterVec
	decision  prometheus.Histogram
	created   *prometheus.CounterVec
	lead      *prometheus.HistogramVec
	boots     *prometheus.CounterVec
	boot      prometheus.Histogram
	events    *prometheus.CounterVec

	store     *prometheus.HistogramVec
	storeErrs *prometheus.CounterVec
	hooks     *prometheus.CounterVec

	cost        *prometheus.CounterVec
	tenantCost  *prometheus.CounterVec
	nodeSeconds prometheus.Counter
	busySeconds prometheus.Counter
	burn        prometheus.Gauge

	templates, tenants, kinds few
}

// few tells the first values of a label apart and calls the rest "other", so
// that what users write cannot grow a scrape without end.
type few struct {
	most int
	mu   sync.Mutex
	seen map[string]bool
}

func newFew(most int) few { return few{most: most, seen: map[string]bool{}} }

const other = "other"

func (f *few) of(v string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.seen[v] {
		if len(f.seen) >= f.most {
			return other
		}
		f.seen[v] = true
	}
	return v
}

// Bounds of labels.
const (
	mostTemplates  = 200
	mostTenants    = 50
	mostEventKinds = 100
)

// The buckets of durations, in seconds: of what a person hardly notices, of what
// is waited for, and of a task's life.
var (
	quick = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}
	waits = []float64{.002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	lives = []float64{.1, 1, 10, 60, 300, 900, 1800, 3600, 7200, 21600}
)

// durations are the options of a histogram: native where the scraper asks for
// it, beside classic buckets.
func durations(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: "muster_" + name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(durations(name, help, buckets), labels)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_" + name, Help: help}, labels)
}

// NewMeter registers what is counted with r.
func NewMeter(r *prometheus.Registry) (*Meter, error) {
	m := &Meter{templates: newFew(mostTemplates), tenants: newFew(mostTenants), kinds: newFew(mostEventKinds)}
	m.ofTasks()
	m.ofTheLoop()
	m.ofTheRest()
	_, err := register(r, m.settled, m.starts, m.start, m.late, m.run, m.phase, m.reaction, m.decisions, m.why, m.decision, m.created, m.lead,
		m.boots, m.boot, m.events, m.store, m.storeErrs, m.hooks, m.cost, m.tenantCost, m.nodeSeconds, m.busySeconds, m.burn)
	return m, err
}

func (m *Meter) ofTasks() {
	m.settled = counter("tasks_settled_total", "Tasks that ended, by final state and reason.", "state", "reason")
	m.starts = counter("task_starts_total", "Tasks whose first instruction ran, by template and launch: a warm one found its sandbox ready.", "template", "launch")
	m.start = histogram("start_latency_seconds", "From a task becoming due to its first instruction, by launch (warm, cold).", waits, "launch")
	m.late = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_late_starts_total", Help: "Tasks whose first instruction ran later after they were due than the objective allows; of those that muster_start_latency_seconds counts."})
	m.run = prometheus.NewHistogram(durations("task_run_seconds", "How long the commands of tasks ran.", lives))
	m.phase = histogram("task_phase_seconds", "How long tasks that ended were in each phase, by launch.", append(slices.Clone(waits[:14]), lives[4:]...), "launch", "phase")
	m.reaction = histogram("reaction_seconds", "From a task becoming due that finds no sandbox to the next sandbox being ready, by stage (detect, decide, supply) and in all (total).", waits, "stage")
	for _, l := range []fleet.Launch{fleet.LaunchWarm, fleet.LaunchCold} {
		m.start.WithLabelValues(string(l)) // present from the first scrape on
	}
	for _, s := range []string{fleet.ReactDetect, fleet.ReactDecide, fleet.ReactSupply, fleet.ReactTotal} {
		m.reaction.WithLabelValues(s)
	}
}

func (m *Meter) ofTheLoop() {
	m.decisions = counter("decisions_total", "Decisions, by whether they did anything.", "changed")
	m.why = counter("decision_reasons_total", "Reasons of decisions by layer, cause and the bound that held: one for each pool of each decision, and one for the nodes where they come and go.", "layer", "cause", "bound")
	m.decision = prometheus.NewHistogram(durations("decision_seconds", "How long a decision takes: observed, decided, journaled and applied.", quick))
	m.created = counter("sandbox_starts_total", "Starts of sandboxes that ended, by template and outcome: ready, or why it failed.", "template", "outcome")
	m.lead = histogram("sandbox_start_seconds", "From a sandbox's request to ready, by template.", waits, "template")
	m.boots = counter("node_boots_total", "Boots of nodes that ended, by outcome (ready, failed).", "outcome")
	m.boot = prometheus.NewHistogram(durations("node_boot_seconds", "From a node's request to ready.", []float64{1, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600}))
	m.events = counter("events_total", "Events that this process has journaled, by kind.", "kind")
	for _, o := range []string{"ready", "failed"} {
		m.boots.WithLabelValues(o)
	}
	for _, c := range []string{"true", "false"} {
		m.decisions.WithLabelValues(c)
	}
}

func (m *Meter) ofTheRest() {
	m.store = histogram("store_seconds", "How long calls of the store and its queue take, by operation.", quick, "op")
	m.storeErrs = counter("store_errors_total", "Calls of the store and its queue that failed, by kind of error; conflict, fenced, full and not_found are answers and no faults.", "kind")
	m.hooks = counter("webhook_attempts_total", "Attempts to deliver webhooks, by outcome: delivered, failed (tried again), given_up.", "outcome")
	m.cost = counter("cost_usd_total", "What was charged since this process began, in US dollars, by cause: task, or why nobody used it.", "cause")
	m.tenantCost = counter("tenant_cost_usd_total", "Of it, what was charged to tasks, in US dollars, by tenant.", "tenant")
	m.nodeSeconds = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_charged_node_seconds_total", Help: "Time of nodes that was charged."})
	m.busySeconds = prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_agent_seconds_total", Help: "Time that sandboxes were held for tasks, as it was charged."})
	m.burn = prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_burn_usd_per_hour", Help: "What the nodes that are there cost in an hour, in US dollars."})
	for _, k := range errorKinds {
		m.storeErrs.WithLabelValues(k.name)
	}
	m.storeErrs.WithLabelValues(other)
	for _, o := range []string{HookDelivered, HookFailed, HookGivenUp} {
		m.hooks.WithLabelValues(o)
	}
	m.cost.WithLabelValues("task")
}

// Outcomes of an attempt to deliver a webhook.
const (
	HookDelivered = "delivered"
	HookFailed    = "failed"
	HookGivenUp   = "given_up"
)

// Started records a task's first instruction, wait after it was due.
func (m *Meter) Started(pool fleet.PoolKey, launch fleet.Launch, wait time.Duration) {
	launch = launchOf(launch)
	m.start.WithLabelValues(string(launch)).Observe(max(0, wait.Seconds()))
	m.starts.WithLabelValues(m.templates.of(templateOf(pool)), string(launch)).Inc()
}

func launchOf(l fleet.Launch) fleet.Launch {
	if l != fleet.LaunchWarm {
		return fleet.LaunchCold
	}
	return l
}

// Settled records a task's end.
func (m *Meter) Settled(t fleet.Task) {
	state := t.State
	if !slices.Contains(fleet.TaskStates, state) {
		state = other
	}
	reason := t.Result.Reason
	if !slices.Contains(knownReasons, reason) {
		reason = other
	}
	m.settled.WithLabelValues(string(state), string(reason)).Inc()
	if t.Phases.Run > 0 {
		m.run.Observe(t.Phases.Run.Seconds())
	}
	if t.StartedAt.IsZero() {
		return // it never had a launch
	}
	p := &t.Phases
	for _, x := range []struct {
		name string
		took time.Duration
	}{{"queue", p.Queue}, {"claim", p.Claim}, {"start", p.Start}, {"setup", p.Setup}, {"run", p.Run}, {"collect", p.Collect}} {
		m.phase.WithLabelValues(string(launchOf(t.Launch)), x.name).Observe(max(0, x.took.Seconds()))
	}
}

var knownReasons = []fleet.TaskReason{
	fleet.ReasonNone, fleet.ReasonExit, fleet.ReasonOOM, fleet.ReasonDisk, fleet.ReasonPids, fleet.ReasonTimeoutQueue,
	fleet.ReasonTimeoutStartup, fleet.ReasonTimeoutRun, fleet.ReasonTimeoutIdle, fleet.ReasonCancelled, fleet.ReasonNodeLost,
	fleet.ReasonBudget, fleet.ReasonImage, fleet.ReasonPrepare, fleet.ReasonSetup, fleet.ReasonCommand, fleet.ReasonSecret,
	fleet.ReasonPoison,
}

// Decided implements fleet.Meter.
func (m *Meter) Decided(d fleet.Decided) {
	m.decisions.WithLabelValues(strconv.FormatBool(d.Changed)).Inc()
	m.decision.Observe(d.Took.Seconds())
	for _, w := range d.Why {
		m.why.WithLabelValues(w.Layer, w.Cause, w.Bound).Inc()
	}
}

// Reacted implements fleet.Meter.
func (m *Meter) Reacted(stage string, took time.Duration) {
	m.reaction.WithLabelValues(stage).Observe(took.Seconds())
}

// Late implements fleet.Meter.
func (m *Meter) Late() { m.late.Inc() }

// Created implements fleet.Meter.
func (m *Meter) Created(template, outcome string, took time.Duration) {
	template = m.templates.of(template)
	if outcome != fleet.StartReady && !slices.Contains(knownReasons, fleet.TaskReason(outcome)) {
		outcome = fleet.StartOther
	}
	m.created.WithLabelValues(template, outcome).Inc()
	if outcome == fleet.StartReady {
		m.lead.WithLabelValues(template).Observe(took.Seconds())
	}
}

// Booted implements fleet.Meter.
func (m *Meter) Booted(took time.Duration, ok bool) {
	if !ok {
		m.boots.WithLabelValues("failed").Inc()
		return
	}
	m.boots.WithLabelValues("ready").Inc()
	m.boot.Observe(took.Seconds())
}

// Happened counts an event that was journaled.
func (m *Meter) Happened(kind string) { m.events.WithLabelValues(m.kinds.of(kind)).Inc() }

// errorKinds are the kinds of errors, the most telling first.
var errorKinds = []struct {
	name string
	is   error
}{
	{"corrupt", fleet.ErrCorrupt}, {"denied", fleet.ErrDenied}, {"unavailable", fleet.ErrUnavailable}, {"full", fleet.ErrFull},
	{"fenced", fleet.ErrFenced}, {"conflict", fleet.ErrConflict}, {"not_found", fleet.ErrNotFound}, {"invalid", fleet.ErrInvalid},
}

// Stored counts a call of the store; op is one of a fixed set.
func (m *Meter) Stored(op string, took time.Duration, err error) {
	m.store.WithLabelValues(op).Observe(took.Seconds())
	if err == nil || errors.Is(err, context.Canceled) { // the caller did not want it any more
		return
	}
	kind := other
	for _, k := range errorKinds {
		if errors.Is(err, k.is) {
			kind = k.name
			break
		}
	}
	m.storeErrs.WithLabelValues(kind).Inc()
}

// Hooked counts an attempt to deliver a webhook, by one of the outcomes above.
func (m *Meter) Hooked(outcome string) { m.hooks.WithLabelValues(outcome).Inc() }

// Charged adds what a step of the ledger has charged.
func (m *Meter) Charged(c fleet.Charged) {
	for _, x := range c.By {
		usd := float64(max(0, x.MicroUSD)) / 1e6
		m.cost.WithLabelValues(x.Cause).Add(usd)
		if x.Tenant != "" {
			m.tenantCost.WithLabelValues(m.tenants.of(string(x.Tenant))).Add(usd)
		}
	}
	m.nodeSeconds.Add(max(0, c.NodeSeconds))
	m.busySeconds.Add(max(0, c.BusySeconds))
	m.burn.Set(float64(c.PerHour) / 1e6)
}
