package v1alpha1

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Cost is what compute costs. Where nothing says what a node costs, it counts
// as nothing, and reports say how many node-hours that is about.
type Cost struct {
	// NodeHourUSD is the price of a node that no other price is for.
	NodeHourUSD float64 `json:"nodeHourUSD,omitempty" minimum:"0" maximum:"1000000"`
	// Host is what this machine costs, with provider: host, in place of
	// nodeHourUSD.
	Host *HostCost `json:"host,omitempty"`
	// Prices by kind of node and time; PriceFile is a file of more of them, CSV
	// (.csv) or YAML.
	Prices    []Price `json:"prices,omitempty" maxItems:"1000"`
	PriceFile string  `json:"priceFile,omitempty" kube:"text=512"`
	// Labels of tasks by which charges are kept, beside team and project.
	Labels []string `json:"labels,omitempty" maxItems:"8"`
	Budget Budget   `json:"budget,omitempty"`
}

// HostCost is the price of a machine that was bought: it is spread over its
// years, and what power and room cost is added.
type HostCost struct {
	PurchaseUSD float64 `json:"purchaseUSD,omitempty" minimum:"0" maximum:"100000000"`
	Years       float64 `json:"years,omitempty" minimum:"0.1" maximum:"50"` // default 4
	MonthlyUSD  float64 `json:"monthlyUSD,omitempty" minimum:"0" maximum:"10000000"`
}

// hoursOfYear are those of a Gregorian year, on average.
const hoursOfYear = 365.2425 * 24

// defaultYears is how long a machine is used; hyperscalers write servers off
// over four to six.
const defaultYears = 4

// HourUSD is what an hour costs.
func (h *HostCost) HourUSD() float64 {
	years := h.Years
	or(&years, defaultYears)
	return h.PurchaseUSD/(years*hoursOfYear) + h.MonthlyUSD*12/hoursOfYear
}

// NodeHour is the price of an hour of a node that no other price is for, in US
// dollars.
func (c *Cost) NodeHour() float64 {
	if c.Host != nil {
		return c.Host.HourUSD()
	}
	return c.NodeHourUSD
}

// Price is what a node of a kind costs for some time. Parts of the kind that
// are left out match any; of the prices that fit, the one that names the
// instance type counts, then the group, then the capacity.
type Price struct {
	Group        string   `json:"group,omitempty" kube:"text=253"`        // node group or node pool
	InstanceType string   `json:"instanceType,omitempty" kube:"text=253"` // m7i.4xlarge
	Capacity     string   `json:"capacity,omitempty" enum:"on-demand,spot,reserved"`
	PerHour      *float64 `json:"perHour" minimum:"0" maximum:"1000000"`
	Currency     string   `json:"currency,omitempty" enum:"USD"` // USD, which is the default, alone
	// MinimumBilling is the shortest time a node is paid for; default 0.
	MinimumBilling string `json:"minimumBilling,omitempty" kube:"duration"`
	// ValidFrom and ValidUntil are times (RFC 3339) or dates in UTC; left out: since
	// ever, and for ever.
	ValidFrom  string `json:"validFrom,omitempty" kube:"text=64"`
	ValidUntil string `json:"validUntil,omitempty" kube:"text=64"`
}

// priceTime reads a time of a price; zero for none.
func priceTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 1970 && t.Year() < 2200 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time", clip(s))
}

// Period is when a price holds: zero times are since ever and for ever.
func (p *Price) Period() (from, until time.Time, err error) {
	if from, err = priceTime(p.ValidFrom); err != nil {
		return from, until, err
	}
	until, err = priceTime(p.ValidUntil)
	return from, until, err
}

func (s *FleetSpec) validateCost(ps *problems) {
	c := &s.Cost
	const field = "spec.cost"
	ps.real(field+".nodeHourUSD", c.NodeHourUSD, 0, 1e6)
	s.validateHost(ps)
	validatePrices(ps, field+".prices", c.Prices)
	if c.PriceFile != "" && !filepath.IsAbs(c.PriceFile) {
		ps.addf(field+".priceFile", "an absolute path", "%q is none", clip(c.PriceFile))
	}
	if len(c.Labels) > 8 {
		ps.addf(field+".labels", "at most 8", "has %d", len(c.Labels))
	}
	for i, l := range c.Labels {
		if l == "" || slices.Index(c.Labels, l) < i {
			ps.addf(at(field+".labels", i), "each label once", "%q is empty or there already", clip(l))
		}
		ps.labels(at(field+".labels", i), map[string]string{l: ""})
	}
	s.validateBudgets(ps)
}

func (s *FleetSpec) validateHost(ps *problems) {
	h := s.Cost.Host
	if h == nil {
		return
	}
	const field = "spec.cost.host"
	ps.real(field+".purchaseUSD", h.PurchaseUSD, 0, 1e8)
	ps.real(field+".years", h.Years, 0.1, 50)
	ps.real(field+".monthlyUSD", h.MonthlyUSD, 0, 1e7)
	switch {
	case s.Cost.NodeHourUSD != 0:
		ps.addf(field, "one of the two", "is there beside nodeHourUSD")
	case s.Nodes.Provider != "" && s.Nodes.Provider != ProviderHost:
		ps.addf(field, "nodeHourUSD or prices", "is for one machine, and nodes.provider is %s", clip(s.Nodes.Provider))
	case h.PurchaseUSD == 0 && h.MonthlyUSD == 0:
		ps.addf(field, "purchaseUSD, monthlyUSD or both", "says no price")
	}
}

// validatePrices checks a price list, also that no two prices are for the same
// nodes at the same time.
func validatePrices(ps *problems, field string, list []Price) {
	if len(list) > maxPrices {
		ps.addf(field, fmt.Sprintf("at most %d", maxPrices), "has %d", len(list))
		return
	}
	type kind struct{ group, instance, capacity string }
	type period struct {
		from, until time.Time
		index       int
	}
	seen := map[kind][]period{}
	for i := range list {
		p := &list[i]
		from, until, ok := p.validate(ps, at(field, i))
		if !ok {
			continue
		}
		k := kind{p.Group, p.InstanceType, p.Capacity}
		for _, o := range seen[k] {
			if (until.IsZero() || o.from.Before(until)) && (o.until.IsZero() || from.Before(o.until)) {
				ps.addf(at(field, i), "validFrom and validUntil that do not overlap", "is for the same nodes at the same time as %s", at(field, o.index))
				break
			}
		}
		seen[k] = append(seen[k], period{from, until, i})
	}
}

// maxPrices bounds a price list.
const maxPrices = 1000

func (p *Price) validate(ps *problems, field string) (from, until time.Time, ok bool) {
	const aTime = "a time such as 2026-03-01T00:00:00Z, or a date"
	before := len(ps.list)
	if p.PerHour == nil {
		ps.addf(sub(field, "perHour"), "a price in US dollars, such as 0.40", "is missing")
	} else if v := *p.PerHour; v != v || v < 0 || v > 1e6 {
		ps.addf(sub(field, "perHour"), "a number from 0 to 1e+06", "%g is not allowed", v)
	}
	ps.oneOf(sub(field, "capacity"), p.Capacity, "on-demand", "spot", "reserved")
	ps.oneOf(sub(field, "currency"), p.Currency, "USD")
	ps.duration(sub(field, "minimumBilling"), p.MinimumBilling, time.Second, 31*day, "none")
	var err error
	if from, err = priceTime(p.ValidFrom); err != nil {
		ps.addf(sub(field, "validFrom"), aTime, "%s", err)
	}
	if until, err = priceTime(p.ValidUntil); err != nil {
		ps.addf(sub(field, "validUntil"), aTime, "%s", err)
	}
	if err == nil && !until.IsZero() && !from.Before(until) {
		ps.addf(sub(field, "validUntil"), "a time after validFrom", "%s is not after it", clip(p.ValidUntil))
	}
	return from, until, len(ps.list) == before
}

// ParsePrices reads a price file: CSV when its name ends in .csv, else YAML of
// the form prices: [...], each as in spec.cost.prices. All problems are told at
// once.
func ParsePrices(name string, src []byte) ([]Price, error) {
	if filepath.Ext(name) == ".csv" {
		return pricesCSV(src)
	}
	var ps problems
	nodes, err := readYAML(src, &ps)
	if err != nil {
		ps.add(asField(err))
		return nil, ps.err()
	}
	if len(nodes) != 1 {
		ps.addf("document", "one object: prices: [...]", "the file has %d documents", len(nodes))
		return nil, ps.err()
	}
	var file struct {
		Prices []Price `json:"prices"`
	}
	decoder{&ps}.decode(nodes[0], reflect.ValueOf(&file).Elem(), &place{}, anywhere)
	if len(ps.list) == 0 && len(file.Prices) == 0 {
		ps.addf("prices", "at least one", "is missing")
	}
	validatePrices(&ps, "prices", file.Prices)
	ps.locate(nodes[0], "")
	return file.Prices, ps.err()
}

// ParseOffHours reads a stretch of the day as HH:MM-HH:MM, up to 24:00; it may
// span midnight. Empty: none.
func ParseOffHours(s string) (from, until time.Duration, err error) {
	if s == "" {
		return 0, 0, nil
	}
	wrong := &fleet.FieldError{Field: "offHours", Wrong: fmt.Sprintf("%q is no stretch of the day", clip(s)), Right: "HH:MM-HH:MM, as 20:00-07:00"}
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, wrong
	}
	for _, p := range []struct {
		text string
		to   *time.Duration
	}{{a, &from}, {b, &until}} {
		if p.text == "24:00" {
			*p.to = day
			continue
		}
		t, err := time.Parse("15:04", p.text)
		if err != nil {
			return 0, 0, wrong
		}
		*p.to = time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	if from == until {
		return 0, 0, wrong
	}
	return from, until, nil
}
