package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// sandboxes lists nodes, confinements and agents from the records of sandboxes.
func (g *gathering) sandboxes(ctx context.Context) error {
	list, err := g.o.Store.Sandboxes(ctx, g.out.Since)
	if err != nil {
		return err
	}
	nodes, profiles := map[fleet.NodeID]*fleet.EvidenceNode{}, map[string]*profile{}
	agents := []agent{}
	for i := range list {
		b := &list[i]
		if !b.CreatedAt.Before(g.out.Until) {
			continue
		}
		g.node(nodes, b)
		if b.ReadyAt.IsZero() && b.ClaimedAt.IsZero() {
			continue // no agent could be in it yet
		}
		p := profileOf(profiles, b)
		if p.Sandboxes++; b.Task != "" && !b.ClaimedAt.IsZero() {
			p.Agents++
			agents = append(agents, agent{g.agent(b), p})
		}
	}
	g.out.Compute.Nodes = []fleet.EvidenceNode{}
	for _, n := range nodes {
		g.out.Compute.Nodes = append(g.out.Compute.Nodes, *n)
	}
	slices.SortFunc(g.out.Compute.Nodes, func(a, b fleet.EvidenceNode) int { return cmp.Compare(a.ID, b.ID) })
	g.list(profiles, agents)
	return nil
}

type agent struct {
	fleet.EvidenceAgent
	profile *profile
}

type profile struct {
	fleet.EvidenceIsolation
	key   string
	index int
}

// list orders profiles and agents.
func (g *gathering) list(profiles map[string]*profile, agents []agent) {
	var ordered []*profile
	for _, p := range profiles {
		ordered = append(ordered, p)
	}
	slices.SortFunc(ordered, func(a, b *profile) int {
		return cmp.Or(cmp.Compare(b.Sandboxes, a.Sandboxes), cmp.Compare(a.key, b.key))
	})
	g.out.Profiles = []fleet.EvidenceIsolation{}
	for i, p := range ordered {
		p.index = i
		g.out.Profiles = append(g.out.Profiles, p.EvidenceIsolation)
	}
	slices.SortFunc(agents, func(a, b agent) int { return cmp.Or(b.Claimed.Compare(a.Claimed), cmp.Compare(a.Sandbox, b.Sandbox)) })
	if n := len(agents) - mostAgents; n > 0 {
		agents, g.out.MoreAgent = agents[:mostAgents], n
	}
	g.out.Agents = []fleet.EvidenceAgent{}
	for i := range agents {
		agents[i].Profile = agents[i].profile.index
		g.out.Agents = append(g.out.Agents, agents[i].EvidenceAgent)
	}
}

// where is the node a sandbox ran on.
func where(b *fleet.Sandbox) fleet.NodeID { return cmp.Or(b.Isolation.Node, b.Spec.Node) }

func (g *gathering) node(nodes map[fleet.NodeID]*fleet.EvidenceNode, b *fleet.Sandbox) {
	id := where(b)
	if id == "" {
		return // it never was on one
	}
	n := nodes[id]
	if n == nil {
		n = &fleet.EvidenceNode{ID: id, First: b.CreatedAt.UTC()}
		for i := range g.view.Nodes {
			if g.view.Nodes[i].ID == id {
				n.Kind = g.view.Nodes[i].Kind
			}
		}
		nodes[id] = n
	}
	end := b.GoneAt.UTC()
	if b.GoneAt.IsZero() || end.After(g.out.Until) {
		end = g.out.Until
	}
	n.First, n.Sandboxes = min2(n.First, b.CreatedAt.UTC()), n.Sandboxes+1
	if end.After(n.Last) {
		n.Last = end
	}
	if b.Task != "" && !b.ClaimedAt.IsZero() {
		n.Agents++
	}
}

// profileOf is how a sandbox was confined, with those like it.
func profileOf(all map[string]*profile, b *fleet.Sandbox) *profile {
	iso := b.Isolation
	iso.Node = ""
	iso.HostUID = 0 // one of its own for each sandbox
	seen := iso.Runtime != "" && !slices.ContainsFunc(iso.Lost, func(s string) bool { return strings.Contains(s, "not observed") })
	p := &profile{EvidenceIsolation: fleet.EvidenceIsolation{Isolation: iso, Observed: seen, Limits: b.Spec.Resources}}
	key, _ := json.Marshal(p.EvidenceIsolation) // numbers and strings always can be
	if known := all[string(key)]; known != nil {
		return known
	}
	p.key = string(key)
	all[p.key] = p
	return p
}

func (g *gathering) agent(b *fleet.Sandbox) fleet.EvidenceAgent {
	a := fleet.EvidenceAgent{
		Sandbox: b.Spec.ID, Task: b.Task, Name: g.names[b.Task], Node: where(b), Template: b.Spec.Template,
		Claimed: b.ClaimedAt.UTC(), Gone: b.GoneAt.UTC(), CPUSeconds: b.Usage.CPU.Seconds(), MemoryPeak: b.Usage.MemoryPeakBytes,
	}
	if b.GoneAt.IsZero() {
		a.Gone = time.Time{}
	}
	end := b.GoneAt
	if end.IsZero() {
		end = g.out.At
	}
	if held, cores := end.Sub(b.ClaimedAt).Seconds(), float64(b.Spec.Resources.MilliCPU)/1000; held > 0 && cores > 0 {
		a.CPUShare = a.CPUSeconds / held / cores
	}
	if m := b.Spec.Resources.MemoryBytes; m > 0 {
		a.MemoryPart = float64(a.MemoryPeak) / float64(m)
	}
	return a
}

// breaches pairs the events of each breach.
func (g *gathering) breaches(ctx context.Context) error {
	c := &g.out.Compute
	c.Breaches = []fleet.EvidenceBreach{}
	found, err := g.o.Store.Events(ctx, fleet.EventFilter{Since: g.out.Since, Kinds: []string{"dedication_breach", "dedication_restored"}, Limit: mostEvents})
	if err != nil {
		return err
	}
	for _, e := range found {
		if e.At.After(g.out.Until) {
			break
		}
		reason := strings.TrimPrefix(e.Reason, "no longer: ")
		open := slices.IndexFunc(c.Breaches, func(b fleet.EvidenceBreach) bool { return b.Reason == reason && b.Until.IsZero() })
		switch {
		case e.Kind == "dedication_breach":
			c.Breaches = append(c.Breaches, fleet.EvidenceBreach{From: e.At.UTC(), Node: e.Node, Reason: reason})
		case open >= 0:
			c.Breaches[open].Until = e.At.UTC()
		default: // it began before
			c.Breaches = append(c.Breaches, fleet.EvidenceBreach{Until: e.At.UTC(), Node: e.Node, Reason: reason})
		}
	}
	if d := g.view.Dedication; d != nil {
		c.Watched, c.LookedAt, c.Error = true, d.At.UTC(), d.Error
		if g.out.Until.Equal(g.out.At) {
			g.standing(d)
		}
	}
	c.Sentence = g.computeSentence()
	return nil
}

// standing adds what holds now and began before the time asked about.
func (g *gathering) standing(d *fleet.DedicationView) {
	c := &g.out.Compute
	for _, t := range d.Trespasses {
		known := slices.ContainsFunc(c.Breaches, func(b fleet.EvidenceBreach) bool {
			return b.Until.IsZero() && b.Node == t.Node && strings.Contains(b.Reason, t.Workload)
		})
		if !known {
			c.Breaches = append(c.Breaches, fleet.EvidenceBreach{Node: t.Node, Reason: fmt.Sprintf("%s: %s", t.Kind, t.Workload)})
		}
	}
}

func (g *gathering) computeSentence() string {
	c := &g.out.Compute
	text := fmt.Sprintf("Agents ran on %s, listed below. ", counted(len(c.Nodes), "node"))
	switch {
	case !c.Watched && len(c.Breaches) == 0:
		return text + "Whether anything else ran there was not observed: this fleet's nodes are not set apart for agents, or it has not been looked yet."
	case len(c.Breaches) > 0:
		text += "They were not alone all the time: " + counted(len(c.Breaches), "breach") + " on record, below."
	default:
		text += "Nothing else was seen to run there, and no agent elsewhere, at any look."
	}
	if c.Error != "" {
		text += " The last look failed: " + c.Error + "."
	}
	if len(g.out.Gaps) > 0 {
		text += " This says nothing of the " + counted(len(g.out.Gaps), "gap") + " in which nobody looked."
	}
	return text
}

// counted is a number of things.
func counted(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "ch"):
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
