package evidence

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

//go:embed page.html
var source string

var pageOf = template.Must(template.New("evidence").Parse(source))

// Most rows of the page; the JSON has more.
const (
	rowsOfNodes  = 300
	rowsOfAgents = 500
	rowsOfEvents = 1000
	few          = 30 // shown without being asked for
)

type link struct{ ID, Name string }

type tile struct{ Value, Label, Class string }

type gapRow struct {
	Left, Width         float64
	From, Until, Length string
}

type breachRow struct {
	From, Until, Text string
	Node              fleet.NodeID
}

type nodeRow struct {
	ID                fleet.NodeID
	Kind              string
	Sandboxes, Agents int
	First, Last       string
}

type bucketRow struct {
	Label string
	Count int
	Width float64
	Late  bool
}

type lateRow struct {
	Due, Wait, Name, Cause string
	ID                     fleet.TaskID
}

type weekRow struct{ Name, Each, Hours, Nodes, Bill, Idle string }

type changeRow struct {
	Number                   int64
	At, Author, Source, Note string
	Fields                   []string
}

type eventRow struct{ At, Kind, Where, Reason string }

// view is the page as the template reads it.
type view struct {
	Fleet, Span, At, Version, From, To           string
	Contents                                     []link
	Tiles                                        []tile
	Observed, Compute, Reaction, ScaleOut, Began string
	Before                                       float64 // part of the time before the records begin, in percent
	Gaps                                         []gapRow
	Notes                                        []string
	Breaches                                     []breachRow
	Nodes                                        []nodeRow
	NodesMore                                    int
	Buckets                                      []bucketRow
	Late                                         []lateRow
	LateMore                                     int
	Profiles                                     []profileCard
	Agents                                       []agentRow
	AgentCount                                   string
	AgentsMore                                   int
	FewAgents, FewEvents                         bool
	Weeks                                        []weekRow
	Changes                                      []changeRow
	Spec                                         string
	Events                                       []eventRow
	EventCount                                   string
}

// Write writes evidence as one page for people: HTML without scripts, and
// without anything from elsewhere.
func Write(w io.Writer, e *fleet.Evidence) error {
	v := &view{
		Fleet: e.Fleet, Version: e.Version, At: stamp(e.At), From: stamp(e.Since), To: stamp(e.Until), Span: stamp(e.Since) + " to " + stamp(e.Until),
		Contents: []link{
			{"observation", "Observed"}, {"compute", "Dedicated compute"}, {"reaction", "Reaction times"}, {"isolation", "Isolation"},
			{"cost", "Cost"}, {"configuration", "Configuration"}, {"events", "Events"},
		},
		Notes: e.Notes, Compute: e.Compute.Sentence, Spec: e.Spec, LateMore: e.Reaction.MoreLate,
	}
	v.observation(e)
	v.compute(e)
	v.reaction(e)
	v.isolation(e)
	v.money(e)
	v.configuration(e)
	v.tiles(e)
	if err := pageOf.Execute(w, v); err != nil {
		return fmt.Errorf("write the evidence: %w", err)
	}
	return nil
}

func (v *view) observation(e *fleet.Evidence) {
	whole := e.Until.Sub(e.Since).Seconds()
	for _, g := range e.Gaps {
		v.Gaps = append(v.Gaps, gapRow{
			Left: 100 * g.From.Sub(e.Since).Seconds() / whole, Width: 100 * g.Until.Sub(g.From).Seconds() / whole,
			From: stamp(g.From), Until: stamp(g.Until), Length: span(g.Until.Sub(g.From)),
		})
	}
	if !e.Began.IsZero() {
		v.Before = 100 * e.Began.Sub(e.Since).Seconds() / whole
		v.Began = "The fleet's records begin at " + stamp(e.Began) + "; before that there is nothing to observe."
	}
	v.Observed = "The control plane was at work all the time: it journals a decision at least every minute, and no gap of three minutes or more is in its journal."
	if len(e.Gaps) > 0 {
		v.Observed = fmt.Sprintf("The control plane was at work for %.2f %% of the time. In the rest nobody looked, or the journal of it is not kept any more: nothing is shown of it, and nothing on this page speaks for it.", 100*(1-e.Unseen))
	}
}

func (v *view) compute(e *fleet.Evidence) {
	for _, b := range e.Compute.Breaches {
		row := breachRow{From: "before this time", Until: "not over", Text: b.Reason, Node: b.Node}
		if !b.From.IsZero() {
			row.From = stamp(b.From)
		}
		if !b.Until.IsZero() {
			row.Until = stamp(b.Until)
		}
		v.Breaches = append(v.Breaches, row)
	}
	for i, n := range e.Compute.Nodes {
		if i == rowsOfNodes {
			v.NodesMore = len(e.Compute.Nodes) - i
			break
		}
		kind := strings.Join(strings.Fields(n.Kind.InstanceType+" "+n.Kind.Capacity+" "+n.Kind.Group), " ")
		v.Nodes = append(v.Nodes, nodeRow{n.ID, kind, n.Sandboxes, n.Agents, stamp(n.First), stamp(n.Last)})
	}
}

func (v *view) reaction(e *fleet.Evidence) {
	r := &e.Reaction
	if s := &r.ScaleOut; s.Samples > 0 {
		v.ScaleOut = fmt.Sprintf("Where no sandbox was free, lately %d times since the control plane started, the first task that waited ran after %s in half of them, within %s in 95 of 100; the slowest took %s.",
			s.Samples, seconds(s.P50Seconds), seconds(s.P95Seconds), seconds(s.MaxSeconds))
	}
	if r.Tasks == 0 {
		v.Reaction = "No task was due in this time."
		return
	}
	late := len(r.Breaches) + r.MoreLate
	v.Reaction = fmt.Sprintf("%d of %d tasks started within the promised %s (%.2f %%). Half of them within %s, 95 of 100 within %s, 99 of 100 within %s; the longest waited %s.",
		r.Tasks-late, r.Tasks, seconds(r.PromiseSeconds), 100*r.Within, seconds(r.P50), seconds(r.P95), seconds(r.P99), seconds(r.Max))
	most := 1
	for _, b := range r.Buckets {
		most = max(most, b.Tasks)
	}
	last := 0.0
	for i, b := range r.Buckets {
		if b.UpTo > r.PromiseSeconds && last >= r.PromiseSeconds && r.Max <= last && i < len(r.Buckets)-1 {
			continue // nothing waited that long
		}
		row := bucketRow{Label: "up to " + seconds(b.UpTo), Count: b.Tasks, Width: 100 * float64(b.Tasks) / float64(most), Late: b.UpTo == 0 || b.UpTo > r.PromiseSeconds}
		if b.UpTo == 0 {
			row.Label = "longer than " + seconds(last)
		}
		last = b.UpTo
		v.Buckets = append(v.Buckets, row)
	}
	for _, b := range r.Breaches {
		wait := seconds(b.Wait)
		if !b.Started {
			wait += ", never started"
		}
		v.Late = append(v.Late, lateRow{Due: stamp(b.Due), Wait: wait, Name: b.Name, Cause: b.Cause, ID: b.Task})
	}
}

func (v *view) money(e *fleet.Evidence) {
	for _, w := range e.Weeks {
		row := weekRow{
			Name: w.From.UTC().Format("2 Jan") + " to " + w.Until.UTC().Format("2 Jan 2006"), Each: "none ran", Hours: fmt.Sprintf("%.2f", w.AgentHours),
			Nodes: fmt.Sprintf("%.1f", w.NodeHours), Bill: usd(w.MicroUSD), Idle: fmt.Sprintf("%.0f %%", 100*w.IdleShare),
		}
		if w.AgentHourMicroUSD != nil {
			row.Each = usd(*w.AgentHourMicroUSD)
		}
		v.Weeks = append(v.Weeks, row)
	}
}

func (v *view) configuration(e *fleet.Evidence) {
	for i, c := range e.Changes {
		row := changeRow{Number: c.Number, At: stamp(c.At), Author: c.Author, Source: "from " + c.Source, Note: c.Note, Fields: c.Changes}
		if i == 0 && c.At.Before(e.Since) {
			row.Fields = []string{"in force at the beginning"}
		} else if len(row.Fields) == 0 {
			row.Fields = []string{"the first"}
		}
		v.Changes = append(v.Changes, row)
	}
	for i := len(e.Events) - 1; i >= 0 && len(v.Events) < rowsOfEvents; i-- {
		x := &e.Events[i]
		where := string(x.Pool)
		if x.Node != "" {
			where = string(x.Node)
		}
		v.Events = append(v.Events, eventRow{At: x.At.UTC().Format("2006-01-02 15:04:05"), Kind: x.Kind, Where: where, Reason: x.Reason})
	}
	v.EventCount = fmt.Sprintf("%d events are on record.", len(e.Events))
	if e.MoreEvent {
		v.EventCount = fmt.Sprintf("The newest %d events; there were more.", len(e.Events))
	}
	if n := len(e.Events) - len(v.Events); n > 0 {
		v.EventCount += fmt.Sprintf(" The newest %d are below, all are in the JSON.", len(v.Events))
	}
	v.FewEvents = len(v.Events) <= few
}

func (v *view) tiles(e *fleet.Evidence) {
	grade := func(good, mid bool) string {
		switch {
		case good:
			return "good"
		case mid:
			return "mid"
		}
		return "bad"
	}
	v.Tiles = append(v.Tiles, tile{fmt.Sprintf("%.2f %%", 100*(1-e.Unseen)), "of the time observed", grade(len(e.Gaps) == 0, e.Unseen < 0.5)})
	alone := tile{"not observed", "whether agents were alone on their nodes", "mid"}
	if e.Compute.Watched || len(e.Compute.Breaches) > 0 {
		n := len(e.Compute.Breaches)
		alone = tile{fmt.Sprint(n), "breaches of dedicated compute", grade(n == 0, false)}
	}
	v.Tiles = append(v.Tiles, alone)
	if r := &e.Reaction; r.Tasks > 0 {
		v.Tiles = append(v.Tiles, tile{fmt.Sprintf("%.2f %%", 100*r.Within), fmt.Sprintf("of %d tasks started within %s", r.Tasks, seconds(r.PromiseSeconds)), grade(r.Within >= 0.999, r.Within >= 0.99)})
	}
	seen, all := 0, 0
	for _, p := range e.Profiles {
		all += p.Sandboxes
		if p.Observed {
			seen += p.Sandboxes
		}
	}
	if all > 0 {
		v.Tiles = append(v.Tiles, tile{fmt.Sprintf("%d of %d", seen, all), "sandboxes whose isolation the kernel confirmed", grade(seen == all, seen > 0)})
	}
	for i := len(e.Weeks) - 1; i >= 0; i-- {
		if c := e.Weeks[i].AgentHourMicroUSD; c != nil {
			v.Tiles = append(v.Tiles, tile{usd(*c), "an agent-hour, in the last week that had any", ""})
			break
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func usd(micro int64) string {
	v := float64(micro) / 1e6
	if v > -0.1 && v < 0.1 && micro != 0 {
		return fmt.Sprintf("$%.4f", v)
	}
	return fmt.Sprintf("$%.2f", v)
}

// seconds is a wait for people.
func seconds(v float64) string {
	switch {
	case v == 0:
		return "0 s"
	case v < 1:
		return fmt.Sprintf("%.0f ms", 1000*v)
	case v < 10 && v != float64(int(v)):
		return fmt.Sprintf("%.1f s", v)
	case v < 120:
		return fmt.Sprintf("%.0f s", v)
	}
	return span(time.Duration(v * float64(time.Second)))
}

func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}
