package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster.dev/muster/internal/fleet"
)

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
	return register(c.Registry, buildInfo(c.Version), leader(func() bool { return true }), &fleetCollector{engine: c.Engine, ledger: c.Ledger, log: c.Logger, clock: c.Clock})
}

// buildInfo tells which program this is.
func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "muster_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// leader tells whether this process works for its fleets.
func leader(is func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_leader", Help: "1 while this process leads; 0 while it stands by, and shows nothing of a fleet.",
	}, func() float64 { return flag(is()) })
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

	descNodesWant = desc("nodes_desired", "Nodes wanted; those that are there, where they do not come and go.")
	descNodesErr  = desc("nodes_error", "1 while nodes cannot be read, or the last ones asked for did not come.")
	descPrice     = desc("node_hour_usd", "What a node costs in an hour by spec.cost.nodeHourUSD, in US dollars; absent where it is not said.")
	descBreaches  = desc("dedication_breaches", "Breaches of the rule that agents share no machine, as of the last look; absent where nodes are not meant for agents alone.")

	descQueueBacklog = desc("queue_backlog", "Tasks that are due and wait in this queue, as of its last good reading.", "queue")
	descQueueFlight  = desc("queue_in_flight", "Tasks of this queue that are leased.", "queue")
	descQueueDelayed = desc("queue_delayed", "Tasks of this queue that are not due yet.", "queue")
	descQueueDead    = desc("queue_dead_letters", "Tasks of this queue that are set aside for a person.", "queue")
	descQueueOldest  = desc("queue_oldest_age_seconds", "Age of the oldest task that waits in this queue; 0 when none waits.", "queue")
	descQueueAge     = desc("queue_reading_age_seconds", "Age of the last good reading of this queue; absent before the first.", "queue")
	descQueueError   = desc("queue_error", "1 while this queue cannot be read.", "queue")

	descBacklog   = desc("backlog", "Tasks that are due and wait.", "template")
	descDelayed   = desc("delayed", "Tasks that are not due yet.", "template")
	descInFlight  = desc("in_flight", "Tasks that are leased.", "template")
	descOldest    = desc("oldest_age_seconds", "Age of the oldest waiting task; 0 when none waits.", "template")
	descArrivals  = desc("arrival_rate", "Tasks a second, recent.", "template")
	descDesired   = desc("sandboxes_desired", "Sandboxes wanted, busy ones included.", "template")
	descWarm      = desc("sandboxes_warm_target", "Warm sandboxes wanted.", "template")
	descSandboxes = desc("sandboxes", "Sandboxes, by state.", "template", "state")
	descEmpty     = desc("time_to_empty_seconds", "How long the warm pool lasts at the present rate; absent while it is not being depleted.", "template")
	descBinding   = desc("binding", "1 where a constraint holds a template back: the bound that its last decision names.", "template", "bound")
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
	gauge(ch, descNodesWant, float64(v.NodesDesired))
	gauge(ch, descNodesErr, flag(v.NodesError != ""))
	if v.NodeHourMicroUSD > 0 {
		gauge(ch, descPrice, float64(v.NodeHourMicroUSD)/1e6)
	}
	if v.Dedication != nil && !v.Dedication.At.IsZero() {
		gauge(ch, descBreaches, float64(len(v.Dedication.Trespasses)))
	}
	c.collectQueues(ch, v.Queues)
	collectNodes(ch, v.Nodes)
	collectBounds(ch, v.Pools)
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

// collectQueues shows the reading of each queue; their number is bounded by the
// fleet's specification.
func (c *fleetCollector) collectQueues(ch chan<- prometheus.Metric, queues []fleet.QueueView) {
	for i := range queues {
		q := &queues[i]
		gauge(ch, descQueueError, flag(q.Error != ""), q.Name)
		if q.AsOf.IsZero() {
			continue // it was never read: nothing is known, which is not zero
		}
		gauge(ch, descQueueAge, max(0, c.clock().Sub(q.AsOf).Seconds()), q.Name)
		gauge(ch, descQueueBacklog, float64(q.Backlog), q.Name)
		gauge(ch, descQueueFlight, float64(q.InFlight), q.Name)
		gauge(ch, descQueueDelayed, float64(q.Delayed), q.Name)
		gauge(ch, descQueueDead, float64(q.Dead), q.Name)
		gauge(ch, descQueueOldest, q.OldestAge.Seconds(), q.Name)
	}
}

// collectBounds shows which bounds hold which templates back, variants with
// their template.
func collectBounds(ch chan<- prometheus.Metric, pools []fleet.PoolView) {
	type binding struct{ template, bound string }
	seen := map[binding]bool{}
	for i := range pools {
		if b := (binding{pools[i].Template, pools[i].Bound}); b.bound != "" && !seen[b] {
			seen[b] = true
			gauge(ch, descBinding, 1, b.template, b.bound)
		}
	}
}

// templateOf is the template of a pool, or of the one it is a variant of.
func templateOf(pool fleet.PoolKey) string {
	name, _, _ := strings.Cut(string(pool), "~")
	return name
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
