package plan

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

// Policy is how a fleet wants to be sized. Zero fields take the defaults of
// WithDefaults. It is plain JSON, so that a recorded observation can be decided
// again under another policy.
type Policy struct {
	// First names the template Min belongs to.
	First string `json:"first"`
	// Min is the smallest warm stock of the first template; Max bounds the
	// sandboxes of all pools in any state (0: no bound).
	Min       int                       `json:"min"`
	Max       int                       `json:"max"`
	Templates map[string]TemplatePolicy `json:"templates"`

	// Quantile of demand in one lead time that the warm stock covers.
	Quantile float64 `json:"quantile"`
	// Review is the longest time between two decisions; the stock must last
	// for it, too.
	Review time.Duration `json:"review"`
	// PriorLead stands in before the first measurement.
	PriorLead fleet.Lead `json:"priorLead"`
	// Objective is the wait that the 99th percentile of tasks should stay
	// under.
	Objective time.Duration `json:"objective"`

	// StaleAfter is the age from which a reading is not trusted for scale-in.
	StaleAfter time.Duration `json:"staleAfter"`
	// HoldWarm is how long a warm target outlives its cause, HoldSurplus how
	// long a surplus must last before it is scaled in, DrainGrace how long a
	// drained sandbox can be taken back.
	HoldWarm    time.Duration `json:"holdWarm"`
	HoldSurplus time.Duration `json:"holdSurplus"`
	DrainGrace  time.Duration `json:"drainGrace"`
	// BurstMemory is how long after the last arrival the size of past bursts
	// is kept in stock.
	BurstMemory time.Duration `json:"burstMemory"`
	// Surge is the share of a pool that is replaced at once when it is stale.
	Surge float64 `json:"surge"`

	Breaker BreakerPolicy `json:"breaker"`
	Budget  Budget        `json:"budget"`
	Nodes   NodePolicy    `json:"nodes"`
}

// TemplatePolicy is what is particular to one template.
type TemplatePolicy struct {
	Min      int           `json:"min"`    // smallest warm stock
	MaxAge   time.Duration `json:"maxAge"` // 0: never replaced for age
	Priority int           `json:"priority"`
}

// BreakerPolicy says when starts are held back.
type BreakerPolicy struct {
	Threshold int           `json:"threshold"` // failures in a row that open it
	Backoff   time.Duration `json:"backoff"`   // first back-off; doubles with every failed probe
	Max       time.Duration `json:"max"`       // longest back-off
	// GiveUp is the count of failures in a row after which tasks that wait for
	// a revision that never once started are failed with the reason.
	GiveUp int `json:"giveUp"`
}

// Budget bounds spending in micro-USD, in an hour, a day and a month of UTC; 0
// is no bound.
type Budget struct {
	PerHour  int64 `json:"perHour"`
	PerDay   int64 `json:"perDay"`
	PerMonth int64 `json:"perMonth,omitempty"`
	NodeHour int64 `json:"nodeHour"` // price of a node for an hour
}

// NodePolicy says how nodes are brought and returned.
type NodePolicy struct {
	Scalable bool          `json:"scalable"` // false: one fixed host
	Min      int           `json:"min"`
	Max      int           `json:"max"`
	Slots    int           `json:"slots"`    // of a new node
	Size     Size          `json:"size"`     // of a new node
	BootLead time.Duration `json:"bootLead"` // until it is measured
	// MinBill is the shortest time a node is paid for.
	MinBill time.Duration `json:"minBill"`
	// LateShare is the share of tasks that may wait longer than the objective;
	// the price of a late start follows it, between PriceMin and PriceMax
	// node-seconds: Gain is how strongly one late start moves it (in its
	// logarithm). Keep is what a node that is there is worth as a multiple of one
	// that would have to be booted.
	LateShare float64 `json:"lateShare"`
	PriceMin  float64 `json:"priceMin"`
	PriceMax  float64 `json:"priceMax"`
	Gain      float64 `json:"gain"`
	Keep      float64 `json:"keep"`
	// NoFill leaves the free slots of paid nodes empty: to measure what keeping
	// them warm is worth.
	NoFill bool `json:"noFill,omitempty"`
}

// WithDefaults fills in what was left out.
func (p Policy) WithDefaults() Policy {
	p.fill()
	return p
}

func (p *Policy) fill() {
	def(&p.Quantile, 0.99)
	def(&p.Review, time.Second)
	def(&p.PriorLead.P50, time.Second)
	def(&p.PriorLead.P95, max(2*time.Second, p.PriorLead.P50))
	def(&p.PriorLead.P99, max(5*time.Second, p.PriorLead.P95))
	def(&p.Objective, 5*time.Second)
	def(&p.StaleAfter, 10*time.Second)
	def(&p.HoldWarm, 2*time.Minute)
	def(&p.HoldSurplus, 30*time.Second)
	def(&p.DrainGrace, 2*time.Second)
	def(&p.BurstMemory, 10*time.Minute)
	def(&p.Surge, 0.25)
	def(&p.Breaker.Threshold, 3)
	def(&p.Breaker.Backoff, time.Second)
	def(&p.Breaker.Max, time.Minute)
	def(&p.Breaker.GiveUp, 5)
	def(&p.Nodes.Slots, 8)
	def(&p.Nodes.BootLead, 45*time.Second)
	def(&p.Nodes.MinBill, time.Minute)
	def(&p.Nodes.LateShare, 0.008)
	def(&p.Nodes.PriceMin, 50)
	def(&p.Nodes.PriceMax, 250)
	def(&p.Nodes.Gain, 0.02)
	def(&p.Nodes.Keep, 5)
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}
