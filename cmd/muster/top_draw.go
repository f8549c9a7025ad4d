package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// topSorts are the orders of sandboxes, the first by default; the dearest first.
var topSorts = []string{"cpu", "memory", "age", "state"}

// topSeen is what one look has found.
type topSeen struct {
	Fleet     v1alpha1.FleetView     `json:"fleet"`
	Sandboxes []v1alpha1.SandboxView `json:"sandboxes"`
	Events    []fleet.Event          `json:"events"` // the newest, oldest first
}

// topHow is how it is to be drawn.
type topHow struct {
	width, height int // of the terminal; 0: none, and nothing is cut
	colour        bool
	sort, filter  string
	typing        bool   // the filter is being typed
	problem       string // why the picture is an old one
	now           time.Time
}

// topScreen collects lines that fit.
type topScreen struct {
	topHow
	lines []string
}

func (t *topScreen) add(style, text string) {
	text = terminal.Escape(text)
	if t.width > 0 {
		text = terminal.Cut(text, t.width)
	}
	t.lines = append(t.lines, t.styled(style, text))
}

func (t *topScreen) styled(style, text string) string {
	if !t.colour || style == "" || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// drawTop draws the fleet from the queue to the nodes, its sandboxes and what
// happened last, in no more lines than there are.
func drawTop(v *topSeen, how topHow) string {
	t := &topScreen{topHow: how}
	t.head(&v.Fleet)
	t.picture(&v.Fleet)
	events := min(len(v.Events), 5)
	if how.height > 0 { // sandboxes first: of what is left events get a third
		left := how.height - len(t.lines) - 4
		events = max(0, min(events, left/3))
	}
	rest := math.MaxInt
	if how.height > 0 {
		rest = how.height - len(t.lines) - 1
		if events > 0 {
			rest -= events + 1
		}
	}
	t.boxes(v.Sandboxes, rest)
	if events > 0 {
		t.add("1", "LAST EVENTS")
		for _, e := range v.Events[len(v.Events)-events:] {
			t.add("", e.At.UTC().Format("15:04:05")+"  "+e.Kind+"  "+e.Reason)
		}
	}
	if how.height > 0 {
		t.foot()
	}
	return strings.Join(t.lines, "\n")
}

// head says how the fleet is in three lines.
func (t *topScreen) head(f *v1alpha1.FleetView) {
	up := ""
	if !f.Started.IsZero() {
		up = "  up " + terminal.Age(f.At.Sub(f.Started).Truncate(time.Second))
	}
	cost := ""
	if f.NodeHourUSD > 0 {
		cost = fmt.Sprintf("  $%.2f/h", f.NodeHourUSD*float64(len(f.Nodes)))
	}
	t.add("1", f.Name+up+cost+"  start "+startObjective(f.Start, f.At.Sub(f.Started)))
	t.add(reaction(&f.Reaction))
	switch {
	case t.problem != "":
		t.add("31", "not up to date since "+clock(f.At)+": "+t.problem)
	case f.SignalsError != "":
		t.add("31", "the queue cannot be read: "+f.SignalsError)
	default:
		t.add("", f.Sentence)
	}
}

// reaction says how long scaling out took beside the promise; red where the
// slowest was late.
func reaction(r *v1alpha1.FleetReaction) (style, text string) {
	if r.Samples == 0 {
		return "", "reaction: no task has found the stock empty yet; " + seconds(r.WithinSeconds) + " are promised"
	}
	text = fmt.Sprintf("reaction worst %s of %s promised, p50 %s, p95 %s (%d lately)", seconds(r.MaxSeconds), seconds(r.WithinSeconds), seconds(r.P50Seconds), seconds(r.P95Seconds), r.Samples)
	if r.MaxSeconds > r.WithinSeconds {
		style = "31"
	}
	return style, text
}

// picture is the way of a task: what waits, what takes it, where it runs.
func (t *topScreen) picture(f *v1alpha1.FleetView) {
	var ready, starting, running, draining int
	for i := range f.Pools {
		p := &f.Pools[i]
		ready, starting, running, draining = ready+p.Ready, starting+p.Starting, running+p.Running, draining+p.Draining
	}
	slots, used, up := 0, 0, 0
	for i := range f.Nodes {
		used += f.Nodes[i].Used
		if f.Nodes[i].State == fleet.NodeReady {
			up++
			slots += f.Nodes[i].Slots
		}
	}
	parts := [][]string{
		{"QUEUE", fmt.Sprintf("%d waiting", f.Backlog), oldest(f), fmt.Sprintf("%d delayed", f.Delayed)},
		{"CONSUMERS", fmt.Sprintf("%d busy", f.ConsumersBusy), fmt.Sprintf("of %d wanted", f.Consumers), fmt.Sprintf("%d in flight", f.InFlight)},
		{"SANDBOXES", fmt.Sprintf("%d running", running), fmt.Sprintf("%d ready", ready), fmt.Sprintf("%d starting, %d draining", starting, draining)},
		{"NODES", fmt.Sprintf("%d ready of %d", up, len(f.Nodes)), fmt.Sprintf("%d of %d slots", used, slots), bar(used, slots, 16)},
	}
	t.lines = append(t.lines, "")
	t.columns(parts)
	for i := range f.Pools {
		if p := &f.Pools[i]; p.Breaker.Open {
			t.add("31", breakerText(*p, f.At))
		}
	}
	t.lines = append(t.lines, "")
}

func oldest(f *v1alpha1.FleetView) string {
	if f.Backlog == 0 {
		return "nobody waits"
	}
	return "oldest " + cmp.Or(seconds(f.OldestAgeSeconds), "0s")
}

// columns shows the parts side by side, or below one another where they do not
// fit: then the first two words of each have to do.
func (t *topScreen) columns(parts [][]string) {
	widths, sum := make([]int, len(parts)), 0
	for i, p := range parts {
		for _, word := range p {
			widths[i] = max(widths[i], terminal.Width(word))
		}
		sum += widths[i] + 3
	}
	if t.width > 0 && sum-3 > t.width {
		for _, p := range parts {
			t.add("", fmt.Sprintf("%-10s%s", p[0], strings.Join(p[1:3], ", ")))
		}
		return
	}
	for row := range parts[0] {
		style, between := "", "   "
		if row == 0 {
			style, between = "1", " ▶ "
		}
		var b strings.Builder
		for i, p := range parts {
			if i > 0 {
				b.WriteString(between)
			}
			b.WriteString(p[row] + strings.Repeat(" ", widths[i]-terminal.Width(p[row])))
		}
		t.add(style, strings.TrimRight(b.String(), " "))
	}
}

// bar is how full something is.
func bar(used, of, width int) string {
	if of <= 0 {
		return ""
	}
	full := min(width, (used*width+of-1)/of)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// boxes lists sandboxes in at most so many lines.
func (t *topScreen) boxes(all []v1alpha1.SandboxView, lines int) {
	list := slices.DeleteFunc(slices.Clone(all), func(v v1alpha1.SandboxView) bool { return !topMatches(&v, t.filter) })
	sortBoxes(list, t.sort)
	if lines < 2 {
		return
	}
	cut := 0
	if len(list) > lines-1 {
		cut = len(list) - max(0, lines-2)
		list = list[:len(list)-cut]
	}
	var b strings.Builder
	table := &terminal.Table{Width: t.width, Colour: t.colour, Columns: []terminal.Column{
		{Title: "SANDBOX", Flex: true, Least: 8}, {Title: "POOL", Flex: true, Least: 8}, {Title: "STATE"}, {Title: "CPU", Right: true}, {Title: "MEMORY", Right: true},
		{Title: "PIDS", Right: true}, {Title: "AGE", Right: true}, {Title: "NODE", Flex: true, Least: 8}, {Title: "TASK", Flex: true, Least: 8},
	}}
	narrow := t.width > 0 && t.width < 76
	if narrow { // the rest does not fit
		table.Columns = []terminal.Column{table.Columns[0], table.Columns[2], table.Columns[3], table.Columns[4]}
	}
	for i := range list {
		v := &list[i]
		row := terminal.Text(string(v.ID), string(v.Pool), boxState(v), fmt.Sprintf("%.2f", v.Usage.CPUNow), terminal.Bytes(v.Usage.MemoryBytes),
			fmt.Sprint(v.Usage.Pids), terminal.Age(t.now.Sub(v.CreatedAt).Truncate(time.Second)), string(v.Node), string(v.Task))
		row[2].Style = boxStyles[v.State]
		if narrow {
			row = slices.Delete(row, 1, 2)
		}
		table.Row(row...)
	}
	_, _ = table.WriteTo(&b) // into memory
	t.lines = append(t.lines, strings.Split(strings.TrimRight(b.String(), "\n"), "\n")...)
	if cut > 0 {
		t.add("2", fmt.Sprintf("… and %d more", cut))
	}
}

var boxStyles = map[fleet.SandboxState]string{
	fleet.SandboxReady: "32", fleet.SandboxFailed: "31", fleet.SandboxClaimed: "36", fleet.SandboxStarting: "33",
}

// boxState is the word for people: what has a task runs.
func boxState(v *v1alpha1.SandboxView) string {
	if v.State == fleet.SandboxClaimed {
		return "running"
	}
	return string(v.State)
}

// topMatches tells whether a sandbox has the text in what is shown of it.
func topMatches(v *v1alpha1.SandboxView, filter string) bool {
	if filter == "" {
		return true
	}
	shown := strings.Join([]string{string(v.ID), string(v.Pool), boxState(v), string(v.Node), string(v.Task)}, "\n")
	return strings.Contains(strings.ToLower(shown), strings.ToLower(filter))
}

func sortBoxes(list []v1alpha1.SandboxView, by string) {
	slices.SortStableFunc(list, func(a, b v1alpha1.SandboxView) int {
		switch by {
		case "memory":
			return cmp.Or(cmp.Compare(b.Usage.MemoryBytes, a.Usage.MemoryBytes), cmp.Compare(a.ID, b.ID))
		case "age":
			return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
		case "state":
			return cmp.Or(cmp.Compare(boxState(&a), boxState(&b)), cmp.Compare(a.ID, b.ID))
		}
		return cmp.Or(cmp.Compare(b.Usage.CPUNow, a.Usage.CPUNow), cmp.Compare(b.Usage.MemoryBytes, a.Usage.MemoryBytes), cmp.Compare(a.ID, b.ID))
	})
}

// foot is the last line of the terminal.
func (t *topScreen) foot() {
	for len(t.lines) < t.height-1 {
		t.lines = append(t.lines, "")
	}
	t.lines = t.lines[:max(0, t.height-1)]
	switch {
	case t.typing:
		t.add("7", "filter: "+t.filter+"▏ (Enter keeps it, Esc clears it)")
	case t.filter != "":
		t.add("2", "q quit  s sort: "+t.sort+"  / filter: "+t.filter)
	default:
		t.add("2", "q quit  s sort: "+t.sort+"  / filter")
	}
}
