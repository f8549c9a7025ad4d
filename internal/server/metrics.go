package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster.dev/muster/internal/fleet"
)

// Meter counts starts and ends of tasks, as the dispatcher reports them (it
// is a dispatch.Observer). Its labels are bounded: states, reasons and launch
// kinds. It exists apart from the Server, which needs the engine that reports
// to it.
type Meter struct {
	settled *prometheus.CounterVec
	start   *prometheus.HistogramVec
	run     prometheus.Histogram
}

// NewMeter registers the counters with r.
func NewMeter(r *prometheus.Registry) (*Meter, error) {
	m := &Meter{
		settled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_tasks_settled_total", Help: "Tasks that ended, by final state and reason.",
		}, []string{"state", "reason"}),
		start: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_start_latency_seconds", Help: "From a task becoming due to its first instruction, by launch (warm, cold).",
			Buckets:                     []float64{.002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"launch"}),
		run: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_task_run_seconds", Help: "How long the commands of tasks ran.",
			Buckets:                     []float64{.1, 1, 10, 60, 300, 900, 1800, 3600, 7200, 21600},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}),
	}
	for _, l := range []fleet.Launch{fleet.LaunchWarm, fleet.LaunchCold} {
		m.start.WithLabelValues(string(l)) // present from the first scrape on
	}
	_, err := register(r, m.settled, m.start, m.run)
	return m, err
}

// register registers all or none and returns what undoes it.
func register(r *prometheus.Registry, all ...prometheus.Collector) (undo func(), err error) {
	undo = func() {
		for _, c := range all {
			r.Unregister(c)
		}
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			undo()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return undo, nil
}

// registerFleet shows the fleet and the build at each scrape.
func registerFleet(c Config) (undo func(), err error) {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "muster_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": c.Version, "goversion": runtime.Version()},
	})
	info.Set(1)
	return register(c.Registry, info, &fleetCollector{engine: c.Engine, ledger: c.Ledger, log: c.Logger, clock: c.Clock})
}

// Started records a task's first instruction, wait after it was due.
func (m *Meter) Started(_ fleet.PoolKey, launch fleet.Launch, wait time.Duration) {
	if launch != fleet.LaunchWarm {
		launch = fleet.LaunchCold
	}
	m.start.WithLabelValues(string(launch)).Observe(max(0, wait.Seconds()))
}

// Settled records a task's end.
func (m *Meter) Settled(t fleet.Task) {
	state := t.State
	if !slices.Contains(fleet.TaskStates, state) {
		state = "other"
	}
	reason := t.Result.Reason
	if !slices.Contains(knownReasons, reason) {
		reason = "other"
	}
	m.settled.WithLabelValues(string(state), string(reason)).Inc()
	if t.Phases.Run > 0 {
		m.run.Observe(t.Phases.Run.Seconds())
	}
}

var knownReasons = []fleet.TaskReason{
	fleet.ReasonNone, fleet.ReasonExit, fleet.ReasonOOM, fleet.ReasonDisk, fleet.ReasonPids, fleet.ReasonTimeoutQueue,
	fleet.ReasonTimeoutStartup, fleet.ReasonTimeoutRun, fleet.ReasonTimeoutIdle, fleet.ReasonCancelled, fleet.ReasonNodeLost,
	fleet.ReasonBudget, fleet.ReasonImage, fleet.ReasonPrepare, fleet.ReasonSetup, fleet.ReasonCommand, fleet.ReasonSecret,
	fleet.ReasonPoison,
}

// fleetCollector reads the fleet at each scrape.
type fleetCollector struct {
	engine Engine
	ledger Ledger // nil: nothing is charged
	log    *slog.Logger
	clock  func() time.Time
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("muster_"+name, help, labels, nil)
}

var (
	descUp        = desc("view_up", "1 when the fleet could be read for this scrape; where it is 0 the other gauges are absent, not zero.")
	descSignals   = desc("signals_age_seconds", "Age of the last good reading of the queue.")
	descStale     = desc("signals_error", "1 while the queue cannot be read.")
	descConsumers = desc("consumers", "Dispatcher slots, desired and busy.", "state")
	descDead      = desc("dead_letters", "Tasks set aside for a person.")
	descObjective = desc("objective_start_seconds", "The objective for the 99th percentile of start latency.")
	descNodes     = desc("nodes", "Nodes, by state.", "state")
	descSlots     = desc("node_slots", "Sandboxes that fit on ready nodes, and those used.", "state")

	descBacklog   = desc("backlog", "Tasks that are due and wait.", "template")
	descDelayed   = desc("delayed", "Tasks that are not due yet.", "template")
	descInFlight  = desc("in_flight", "Tasks that are leased.", "template")
	descOldest    = desc("oldest_age_seconds", "Age of the oldest waiting task; 0 when none waits.", "template")
	descArrivals  = desc("arrival_rate", "Tasks a second, recent.", "template")
	descDesired   = desc("sandboxes_desired", "Sandboxes wanted, busy ones included.", "template")
	descWarm      = desc("sandboxes_warm_target", "Warm sandboxes wanted.", "template")
	descSandboxes = desc("sandboxes", "Sandboxes, by state.", "template", "state")
	descEmpty     = desc("time_to_empty_seconds", "How long the warm pool lasts at the present rate; absent while it is not being depleted.", "template")
	descBreaker   = desc("breaker_open", "1 while starts of the template are held back.", "template")
	descLead      = desc("start_lead_seconds", "Measured time from a sandbox's request to ready, by percentile.", "template", "percentile")
)

// Describe sends nothing: what there is to show depends on the fleet.
func (c *fleetCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descUp }

// Collect reads the fleet once.
func (c *fleetCollector) Collect(ch chan<- prometheus.Metric) {
	collectBudgets(ch, c.ledger)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	v, err := c.engine.View(ctx)
	if err != nil {
		c.log.Warn("metrics: the fleet cannot be read", "error", err)
		gauge(ch, descUp, 0)
		return
	}
	gauge(ch, descUp, 1)
	if !v.SignalsAsOf.IsZero() {
		gauge(ch, descSignals, max(0, c.clock().Sub(v.SignalsAsOf).Seconds()))
	}
	gauge(ch, descStale, flag(v.SignalsError != ""))
	gauge(ch, descConsumers, float64(v.Consumers), "desired")
	gauge(ch, descConsumers, float64(v.ConsumersBusy), "busy")
	gauge(ch, descDead, float64(v.Dead))
	gauge(ch, descObjective, v.ObjectiveP99.Seconds())
	collectNodes(ch, v.Nodes)
	for name, p := range byTemplate(v.Pools) {
		collectPool(ch, name, p)
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func collectNodes(ch chan<- prometheus.Metric, nodes []fleet.NodeView) {
	states := map[fleet.NodeState]int{fleet.NodeReady: 0, fleet.NodeBooting: 0, fleet.NodeCordoned: 0, fleet.NodeDraining: 0}
	slots, used := 0, 0
	for _, n := range nodes {
		states[n.State]++
		if n.State == fleet.NodeReady {
			slots += n.Slots
		}
		used += n.Used
	}
	for state, n := range states {
		gauge(ch, descNodes, float64(n), string(state))
	}
	gauge(ch, descSlots, float64(slots), "total")
	gauge(ch, descSlots, float64(used), "used")
}

// byTemplate adds the variants of a template to it: their number has no bound
// and would grow the scrape without end. Lead and time to empty are those of
// the template's own pool.
func byTemplate(pools []fleet.PoolView) map[string]fleet.PoolView {
	sum := map[string]fleet.PoolView{}
	for _, p := range pools {
		s, ok := sum[p.Template]
		if !ok {
			s.TimeToEmpty = -1
		}
		s.Backlog += p.Backlog
		s.Delayed += p.Delayed
		s.InFlight += p.InFlight
		s.OldestAge = max(s.OldestAge, p.OldestAge)
		s.ArrivalRate += p.ArrivalRate
		s.Desired += p.Desired
		s.WarmTarget += p.WarmTarget
		s.Ready += p.Ready
		s.Starting += p.Starting
		s.Running += p.Running
		s.Draining += p.Draining
		s.Breaker.Open = s.Breaker.Open || p.Breaker.Open
		if string(p.Pool) == p.Template {
			s.StartLead, s.TimeToEmpty = p.StartLead, p.TimeToEmpty
		}
		sum[p.Template] = s
	}
	return sum
}

func collectPool(ch chan<- prometheus.Metric, name string, p fleet.PoolView) {
	gauge(ch, descBacklog, float64(p.Backlog), name)
	gauge(ch, descDelayed, float64(p.Delayed), name)
	gauge(ch, descInFlight, float64(p.InFlight), name)
	gauge(ch, descOldest, p.OldestAge.Seconds(), name)
	gauge(ch, descArrivals, p.ArrivalRate, name)
	gauge(ch, descDesired, float64(p.Desired), name)
	gauge(ch, descWarm, float64(p.WarmTarget), name)
	gauge(ch, descSandboxes, float64(p.Ready), name, "ready")
	gauge(ch, descSandboxes, float64(p.Starting), name, "starting")
	gauge(ch, descSandboxes, float64(p.Running), name, "running")
	gauge(ch, descSandboxes, float64(p.Draining), name, "draining")
	gauge(ch, descBreaker, flag(p.Breaker.Open), name)
	if p.TimeToEmpty >= 0 {
		gauge(ch, descEmpty, p.TimeToEmpty.Seconds(), name)
	}
	if p.StartLead.Samples > 0 {
		gauge(ch, descLead, p.StartLead.P50.Seconds(), name, "50")
		gauge(ch, descLead, p.StartLead.P95.Seconds(), name, "95")
		gauge(ch, descLead, p.StartLead.P99.Seconds(), name, "99")
	}
}
