package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Model is the world that all policies are put into. Times are those of the
// shared yardstick unless said otherwise; zero fields take the defaults of
// WithDefaults.
type Model struct {
	Boot      Lead // request of a node to its first sandbox
	ColdStart Lead // start of a sandbox to ready; occupies its slot
	Slots     int  // sandboxes on a node
	MinBill   time.Duration
	// Hold is how long the node layer under the rival policies keeps an empty
	// node; default: one boot.
	Hold     time.Duration
	MaxNodes int   // 0: no bound
	NodeHour int64 // price of a node for an hour, micro-USD

	// NodeFailures is the rate at which a ready node dies, per node-hour;
	// its tasks begin again elsewhere. StartFailures is the share of sandbox
	// starts that fail, after their cold start.
	NodeFailures  float64
	StartFailures float64
	// StockOuts are times in which the provider gives no node: what is asked
	// for then is served, and billed, from their end on.
	StockOuts []Window
	Seed      uint64
}

// Window is a span of time.
type Window struct{ From, Until time.Time }

// The defaults of a model.
const (
	DefaultBoot      = 45 * time.Second
	DefaultColdStart = 5 * time.Second
	DefaultSlots     = 8
	DefaultMinBill   = 60 * time.Second
	DefaultNodeHour  = 400_000 // $0.40
)

// Defaults is the model of the shared yardstick.
func Defaults() Model {
	return Model{
		Boot: Constant(DefaultBoot), ColdStart: Constant(DefaultColdStart), Slots: DefaultSlots,
		MinBill: DefaultMinBill, Hold: DefaultBoot, NodeHour: DefaultNodeHour, Seed: 1,
	}
}

// Check says what is impossible in a model.
func (m *Model) Check() error {
	const day = 24 * time.Hour
	switch {
	case m.Slots < 1 || m.Slots > 10_000:
		return fmt.Errorf("%d slots on a node are out of range; want 1 to 10000", m.Slots)
	case m.Boot.Median < 0 || m.Boot.Median > day:
		return fmt.Errorf("a boot time of %s is out of range; want 0 to 24h", m.Boot.Median)
	case m.ColdStart.Median < 0 || m.ColdStart.Median > day:
		return fmt.Errorf("a cold start of %s is out of range; want 0 to 24h", m.ColdStart.Median)
	case m.MinBill < 0 || m.MinBill > 31*day:
		return fmt.Errorf("a billing minimum of %s is out of range; want 0 to 31 days", m.MinBill)
	case m.Hold < 0 || m.Hold > 365*day:
		return fmt.Errorf("holding empty nodes for %s is out of range; want 0 to 365 days", m.Hold)
	case m.StartFailures < 0 || m.StartFailures >= 1 || math.IsNaN(m.StartFailures):
		return fmt.Errorf("a share of %v failing starts is out of range; want 0 to below 1", m.StartFailures)
	case m.NodeFailures < 0 || m.NodeFailures > 3600 || math.IsNaN(m.NodeFailures):
		return fmt.Errorf("%v failures per node-hour are out of range; want 0 to 3600", m.NodeFailures)
	case m.NodeHour < 0:
		return fmt.Errorf("a price of %d micro-USD is negative", m.NodeHour)
	case m.MaxNodes < 0:
		return fmt.Errorf("%d nodes at most: want 0 (no bound) or more", m.MaxNodes)
	}
	return nil
}

// Lead is a distribution of lead times.
type Lead struct {
	Kind   string // "constant", "uniform", "lognormal"
	Median time.Duration
	Low    time.Duration // of uniform
	High   time.Duration // of uniform
	Sigma  float64       // of lognormal
}

// Constant is always d.
func Constant(d time.Duration) Lead { return Lead{Kind: "constant", Median: d} }

// ParseLead reads "45" (seconds), "45s", "uniform:30-60", or "lognormal:45,0.4"
// (median, and the standard deviation of the logarithm).
func ParseLead(text string) (Lead, error) {
	kind, rest, ok := strings.Cut(text, ":")
	bad := fmt.Errorf("%q is no lead time; want seconds, uniform:LOW-HIGH or lognormal:MEDIAN,SIGMA", text)
	if !ok {
		d, err := ParseSeconds(text)
		if err != nil {
			return Lead{}, bad
		}
		return Constant(d), nil
	}
	sep := map[string]string{"uniform": "-", "lognormal": ","}[kind]
	if sep == "" {
		return Lead{}, bad
	}
	a, b, ok := strings.Cut(rest, sep)
	first, err := ParseSeconds(a)
	if !ok || err != nil {
		return Lead{}, bad
	}
	if kind == "uniform" {
		high, err := ParseSeconds(b)
		if err != nil || high < first {
			return Lead{}, bad
		}
		return Lead{Kind: kind, Median: (first + high) / 2, Low: first, High: high}, nil
	}
	sigma, err := strconv.ParseFloat(b, 64)
	if err != nil || !(sigma >= 0 && sigma <= 3) {
		return Lead{}, bad
	}
	return Lead{Kind: kind, Median: first, Sigma: sigma}, nil
}

// ParseSeconds reads a number of seconds or a Go duration, not negative.
func ParseSeconds(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		if !(v >= 0 && v <= 1e9) {
			return 0, fmt.Errorf("%q is out of range; want seconds from 0 to 1e9", text)
		}
		return time.Duration(math.Round(v*1000)) * time.Millisecond, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no length of time; want seconds or a duration like 90s", text)
	}
	return d, nil
}

func (l Lead) String() string {
	switch l.Kind {
	case "uniform":
		return fmt.Sprintf("%s to %s", l.Low, l.High)
	case "lognormal":
		return fmt.Sprintf("%s (lognormal, sigma %g)", l.Median, l.Sigma)
	}
	return l.Median.String()
}

// least is the shortest lead time the distribution gives, in milliseconds.
func (l Lead) least() int64 {
	switch l.Kind {
	case "uniform":
		return l.Low.Milliseconds()
	case "lognormal":
		return 0
	}
	return l.Median.Milliseconds()
}

// draw takes one lead time, in milliseconds; a constant draws nothing.
func (l Lead) draw(r *rand.Rand) int64 {
	switch l.Kind {
	case "uniform":
		return l.Low.Milliseconds() + int64(r.Float64()*float64((l.High-l.Low).Milliseconds()))
	case "lognormal":
		return int64(math.Exp(l.Sigma*r.NormFloat64()) * float64(l.Median.Milliseconds()))
	}
	return l.Median.Milliseconds()
}
