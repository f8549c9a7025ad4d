package plan

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Cause is the kind of a reason.
type Cause string

// The causes.
const (
	CauseSteady     Cause = "steady"       // wanted and supply agree
	CauseDemand     Cause = "demand"       // tasks wait for sandboxes
	CauseWarm       Cause = "warm"         // the warm stock is below its target
	CauseBurst      Cause = "burst"        // the stock empties within a lead time
	CauseFloor      Cause = "floor"        // a floor lifts the warm stock
	CauseStarting   Cause = "starting"     // what is missing is on its way
	CauseSurplus    Cause = "surplus"      // more than wanted, for long enough
	CauseHold       Cause = "hold"         // more than wanted, not for long enough
	CauseStale      Cause = "stale_signal" // no scale-in: the signals are missing
	CauseReplace    Cause = "replace"      // stale revision or too old
	CauseBreaker    Cause = "breaker"      // starts fail
	CauseProbe      Cause = "probe"        // one start to see whether they still fail
	CauseCapacity   Cause = "capacity"     // a bound of sandboxes, nodes or resources
	CauseBudget     Cause = "budget"       // the money is used up
	CauseNoTemplate Cause = "no_template"  // tasks wait for a template that is gone
	CauseReclaim    Cause = "reclaim"      // idle stock makes room for waiting tasks
	CauseUndrain    Cause = "undrain"      // taken back in place of starting another
	CauseGiveUp     Cause = "give_up"      // it never started and never will
	CauseUnfit      Cause = "unfit"        // made with another isolation than is asked for now
	CauseNodes      Cause = "nodes"        // room for sandboxes
	CauseIdleNode   Cause = "idle_node"    // an empty node costs more than it saves
)

// Bound names the constraint that bound; empty when none did.
type Bound string

// The bounds.
const (
	BoundNone     Bound = ""
	BoundMax      Bound = "capacity.sandboxes.max"
	BoundSlots    Bound = "node.slots"
	BoundCPU      Bound = "node.cpu"
	BoundMemory   Bound = "node.memory"
	BoundDisk     Bound = "node.disk"
	BoundNodes    Bound = "nodes" // none is there
	BoundNodesMax Bound = "nodes.max"
	BoundPerHour  Bound = "cost.budget.perHour"
	BoundPerDay   Bound = "cost.budget.perDay"
	BoundPerMonth Bound = "cost.budget.perMonth"
	BoundBreaker  Bound = "breaker"
	BoundFloor    Bound = "capacity.floors"
	BoundMin      Bound = "capacity.sandboxes.min"
	BoundTemplate Bound = "template"
	BoundSignal   Bound = "signal"
)

// Reason says why something is done or left. Its sentence is made from the
// numbers, so that they cannot disagree.
type Reason struct {
	Cause   Cause   `json:"cause"`
	Bound   Bound   `json:"bound,omitempty"`
	Numbers Numbers `json:"numbers"`
	// Detail is what numbers cannot say: the error of a failed start, the name
	// of a floor.
	Detail string `json:"detail,omitempty"`
	// Breach is the objective projected forward; nil when it is not in danger.
	Breach *Breach `json:"breach,omitempty"`
}

// Breach says when a task will have waited for longer than the objective, and
// until when so many more nodes had to be requested to prevent it.
type Breach struct {
	At    time.Time `json:"at"`
	By    time.Time `json:"by"`
	Nodes int       `json:"nodes"`
	// Sandboxes are lacking, on those nodes or where nodes are fixed.
	Sandboxes int `json:"sandboxes,omitempty"`
	// Late: By was over when the reason was given; Over: At was, too.
	Late bool `json:"late,omitempty"`
	Over bool `json:"over,omitempty"`
}

// Numbers are those a reason rests on. Counts are tasks or sandboxes.
type Numbers struct {
	Backlog   int           `json:"backlog,omitempty"`
	InFlight  int           `json:"inFlight,omitempty"`
	Ready     int           `json:"ready,omitempty"`
	Starting  int           `json:"starting,omitempty"`
	Running   int           `json:"running,omitempty"`
	Draining  int           `json:"draining,omitempty"`
	Desired   int           `json:"desired,omitempty"`
	Warm      int           `json:"warm,omitempty"`
	Floor     int           `json:"floor,omitempty"`
	Stale     int           `json:"stale,omitempty"`
	Count     int           `json:"count,omitempty"` // how many this reason is about
	Limit     int           `json:"limit,omitempty"` // of the bound
	Failures  int           `json:"failures,omitempty"`
	Rate      float64       `json:"rate,omitempty"` // tasks a second
	Lead      time.Duration `json:"lead,omitempty"` // p95
	OldestAge time.Duration `json:"oldestAge,omitempty"`
	Wait      time.Duration `json:"wait,omitempty"` // until this is looked at again
	// Of the node layer, where counts are slots but for Desired, Ready, Starting
	// and Draining, which are nodes.
	Free   int     `json:"free,omitempty"`
	Price  float64 `json:"price,omitempty"` // of a late start, in node-seconds
	Saves  float64 `json:"saves,omitempty"` // late starts an hour that one more node saves
	Spent  int64   `json:"spent,omitempty"`
	Budget int64   `json:"budget,omitempty"` // micro-USD
}

// Map returns the numbers by name, zero ones left out; durations in seconds,
// money in US dollars.
func (n Numbers) Map() map[string]float64 {
	m := map[string]float64{}
	for name, v := range map[string]float64{
		"backlog": float64(n.Backlog), "inFlight": float64(n.InFlight), "ready": float64(n.Ready),
		"starting": float64(n.Starting), "running": float64(n.Running), "draining": float64(n.Draining),
		"desired": float64(n.Desired), "warm": float64(n.Warm), "floor": float64(n.Floor),
		"stale": float64(n.Stale), "count": float64(n.Count), "limit": float64(n.Limit),
		"failures": float64(n.Failures), "rate": n.Rate, "leadSeconds": n.Lead.Seconds(),
		"oldestAgeSeconds": n.OldestAge.Seconds(), "waitSeconds": n.Wait.Seconds(),
		"free": float64(n.Free), "priceNodeSeconds": n.Price, "savesPerHour": n.Saves,
		"spentUSD": float64(n.Spent) / 1e6, "budgetUSD": float64(n.Budget) / 1e6,
	} {
		if v != 0 {
			m[name] = v
		}
	}
	return m
}

// MarshalJSON adds the sentence, for people who read a journal.
func (r Reason) MarshalJSON() ([]byte, error) {
	type plain Reason
	return json.Marshal(struct {
		plain
		Sentence string `json:"sentence"`
	}{plain(r), r.Sentence()})
}

// Sentence says the reason in words with its numbers.
func (r Reason) Sentence() string {
	n := r.Numbers
	var s string
	if r.ofNodes() {
		s = r.nodeSentence()
		if r.Detail != "" {
			s += ": " + r.Detail
		}
		return r.bounded(s)
	}
	switch r.Cause {
	case CauseDemand, CauseWarm, CauseBurst, CauseFloor, CauseStarting, CauseSteady:
		s = r.supplySentence()
	case CauseSurplus:
		s = fmt.Sprintf("%d ready beyond the %d wanted; scaling in %d by name", n.Ready+n.Starting+n.Running-n.Desired, n.Desired, n.Count)
	case CauseHold:
		s = fmt.Sprintf("%s; %d more than wanted, kept for another %s in case demand returns", stock(n), n.Count, short(n.Wait))
	case CauseStale:
		s = fmt.Sprintf("signals are missing (%s); going on from the last reading: %s; nothing is scaled in", r.Detail, stock(n))
		return s
	case CauseReplace:
		s = fmt.Sprintf("replacing %d of %d ready: %s; the new one is made first", n.Count, n.Ready, or(r.Detail, "stale"))
		return r.bounded(s)
	case CauseBreaker:
		s = fmt.Sprintf("%s failed in a row; next try in %s; %s", starts(n), short(n.Wait), waiting(n))
	case CauseProbe:
		s = fmt.Sprintf("%s failed in a row; one probe start; %s", starts(n), waiting(n))
	case CauseCapacity:
		s = fmt.Sprintf("%s; %d more wanted than fit", stock(n), n.Count)
	case CauseBudget:
		s = n.verdict()
	case CauseNoTemplate:
		s = fmt.Sprintf("%s for a template that the fleet no longer has", tasksWait(n))
	case CauseReclaim:
		s = fmt.Sprintf("draining %d idle to make room for waiting tasks", n.Count)
	case CauseUndrain:
		s = fmt.Sprintf("taking back %d that were draining in place of starting others; %s", n.Count, stock(n))
	case CauseGiveUp:
		s = fmt.Sprintf("%s failed and none ever succeeded: failing what waits: %s", starts(n), plural(n.Backlog, "task", "tasks"))
	case CauseUnfit:
		s = fmt.Sprintf("taking 1 of %d ready out of dispatch", n.Ready)
	default:
		s = string(r.Cause)
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return r.bounded(s)
}

func (r Reason) supplySentence() string {
	n := r.Numbers
	var b strings.Builder
	switch r.Cause {
	case CauseDemand:
		fmt.Fprintf(&b, "%s; ", tasksWait(n))
	case CauseBurst:
		b.WriteString("burst: the stock empties within a lead time; ")
	case CauseFloor:
		fmt.Fprintf(&b, "floor of %d; ", n.Floor)
	case CauseStarting:
		b.WriteString("what is missing is starting; ")
	}
	b.WriteString(stock(n))
	if n.Rate > 0 {
		fmt.Fprintf(&b, "; %.2g tasks/s, lead time %s", n.Rate, short(n.Lead))
	} else {
		fmt.Fprintf(&b, "; lead time %s", short(n.Lead))
	}
	if n.Count > 0 {
		fmt.Fprintf(&b, "; starting %d", n.Count)
	}
	return b.String()
}

func (r Reason) bounded(s string) string {
	if r.Bound == BoundNone {
		return s
	}
	s += " (bound: " + string(r.Bound)
	if r.Numbers.Limit > 0 {
		s += fmt.Sprintf(" = %d", r.Numbers.Limit)
	}
	return s + ")"
}

func stock(n Numbers) string {
	return fmt.Sprintf("want %d (backlog %d, in flight %d, warm %d), have %d ready, %d starting, %d running",
		n.Desired, n.Backlog, n.InFlight, n.Warm, n.Ready, n.Starting, n.Running)
}

func waiting(n Numbers) string {
	if n.Backlog == 0 {
		return "no task waits"
	}
	return fmt.Sprintf("%s, the oldest for %s", tasksWait(n), short(n.OldestAge))
}

func tasksWait(n Numbers) string { return plural(n.Backlog, "task waits", "tasks wait") }

func starts(n Numbers) string { return plural(n.Failures, "start", "starts") }

func or(s, other string) string {
	if s != "" {
		return s
	}
	return other
}

// short rounds a duration for people.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
