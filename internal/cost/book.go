package cost

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Key is what charges are added up by.
type Key struct {
	Cause  Cause
	Kind   fleet.NodeKind // of the node
	Pool   fleet.PoolKey  // with CauseTask and CauseWarm
	Tenant fleet.TenantID // with CauseTask
	Labels Labels         // likewise
}

// Template is that of the pool.
func (k Key) Template() string {
	name, _, _ := strings.Cut(string(k.Pool), "~")
	return name
}

// Labels are those labels of a task that charges are kept by, in a form that
// can be compared.
type Labels string

// The separators cannot be in a label.
const (
	labelEnd = "\x1e"
	labelIs  = "\x1f"
)

// LabelsOf picks the labels of these names.
func LabelsOf(all map[string]string, names []string) Labels {
	var b strings.Builder
	for _, n := range slices.Sorted(slices.Values(names)) {
		if v, ok := all[n]; ok && v != "" {
			b.WriteString(n + labelIs + v + labelEnd)
		}
	}
	return Labels(b.String())
}

// Get is one label; empty where there is none.
func (l Labels) Get(name string) string { return l.Map()[name] }

// Map returns them by name.
func (l Labels) Map() map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(string(l), labelEnd) {
		if k, v, ok := strings.Cut(part, labelIs); ok {
			out[k] = v
		}
	}
	return out
}

// Sum is what was charged for one key.
type Sum struct {
	Amount    Micro
	Millis    int64 // milliseconds: of sandboxes with CauseTask and CauseWarm, else of nodes
	Settled   int64 // tasks that ended, with CauseTask
	Succeeded int64 // of them
	// Of those whose use was measured, with CauseTask: what they used of their
	// nodes, and what they were charged in all. Amount holds neither.
	Used, Measured Micro
	Model          fleet.ModelUse // what agents reported, with CauseTask
}

func (s Sum) plus(o Sum) Sum {
	s.Amount, s.Millis, s.Settled, s.Succeeded = s.Amount+o.Amount, s.Millis+o.Millis, s.Settled+o.Settled, s.Succeeded+o.Succeeded
	s.Used, s.Measured = s.Used+o.Used, s.Measured+o.Measured
	s.Model.Add(o.Model)
	return s
}

// NodeKey is one node's charges of one cause.
type NodeKey struct {
	Node  fleet.NodeID
	Cause Cause
}

// Hour is what is known of one hour as a whole.
type Hour struct {
	Amount   Micro
	Nodes    int64 // milliseconds of nodes
	Unpriced int64 // of them, those without a known price
	Busy     int64 // milliseconds of sandboxes with a task
	Peak     int64 // most nodes at once
}

// Book adds charges up. Its three parts are of the same money: each adds up to
// Total.
type Book struct {
	Lines map[Key]Sum
	Nodes map[NodeKey]Micro
	Hours map[int64]Hour // by hours since 1970 in UTC
}

// NewBook returns an empty book.
func NewBook() *Book {
	return &Book{Lines: map[Key]Sum{}, Nodes: map[NodeKey]Micro{}, Hours: map[int64]Hour{}}
}

// HourOf is the number of the hour that a time is in.
func HourOf(t time.Time) int64 { return t.Unix() / 3600 }

// Charge adds an entry for its key; its time goes to the hour it begins in.
func (b *Book) Charge(k Key, e Entry) {
	s := b.Lines[k]
	s.Amount += e.Amount
	b.Lines[k] = s
	b.Nodes[NodeKey{e.Node, e.Cause}] += e.Amount
	h := b.Hours[HourOf(e.From)]
	h.Amount += e.Amount
	b.Hours[HourOf(e.From)] = h
}

// Spend adds time to a key.
func (b *Book) Spend(k Key, d time.Duration) {
	s := b.Lines[k]
	s.Millis += d.Milliseconds()
	b.Lines[k] = s
}

// Settle counts a task that ended.
func (b *Book) Settle(k Key, succeeded bool) {
	s := b.Lines[k]
	s.Settled++
	if succeeded {
		s.Succeeded++
	}
	b.Lines[k] = s
}

// Use adds what a task that ended used of its nodes, as measured, of what it was
// charged.
func (b *Book) Use(k Key, used, charged Micro) {
	s := b.Lines[k]
	s.Used, s.Measured = s.Used+used, s.Measured+charged
	b.Lines[k] = s
}

// Reported adds what the agent of a task that ended reported.
func (b *Book) Reported(k Key, m fleet.ModelUse) {
	s := b.Lines[k]
	s.Model.Add(m)
	b.Lines[k] = s
}

// Add adds what is known of an hour; peaks are not added up.
func (b *Book) Add(hour int64, h Hour) {
	x := b.Hours[hour]
	x.Amount, x.Nodes, x.Unpriced, x.Busy, x.Peak = x.Amount+h.Amount, x.Nodes+h.Nodes, x.Unpriced+h.Unpriced, x.Busy+h.Busy, max(x.Peak, h.Peak)
	b.Hours[hour] = x
}

// Merge adds another book's charges.
func (b *Book) Merge(o *Book) {
	for k, v := range o.Lines {
		b.Lines[k] = b.Lines[k].plus(v)
	}
	for k, v := range o.Nodes {
		b.Nodes[k] += v
	}
	for at, h := range o.Hours {
		b.Add(at, h)
	}
}

// Total is all that was charged.
func (b *Book) Total() (m Micro) {
	for _, s := range b.Lines {
		m += s.Amount
	}
	return m
}

// Check says whether the parts of the book agree.
func (b *Book) Check() error {
	var nodes, hours Micro
	for _, m := range b.Nodes {
		nodes += m
	}
	for _, h := range b.Hours {
		hours += h.Amount
	}
	if t := b.Total(); nodes != t || hours != t {
		return fmt.Errorf("a book of %d has %d by node and %d by hour: %w", t, nodes, hours, fleet.ErrCorrupt)
	}
	return nil
}

func compareKeys(a, b Key) int {
	return cmp.Or(
		cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Labels, b.Labels), cmp.Compare(a.Pool, b.Pool),
		cmp.Compare(a.Kind.Group, b.Kind.Group), cmp.Compare(a.Kind.InstanceType, b.Kind.InstanceType), cmp.Compare(a.Kind.Capacity, b.Kind.Capacity))
}

func (b *Book) keys() []Key { return slices.SortedFunc(maps.Keys(b.Lines), compareKeys) }

func (b *Book) nodeKeys() []NodeKey {
	return slices.SortedFunc(maps.Keys(b.Nodes), func(a, b NodeKey) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Cause, b.Cause))
	})
}
