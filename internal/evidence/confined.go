package evidence

import (
	"fmt"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

type profileCard struct {
	Title, Count string
	Rows         []property
	Lost         []string
}

// property is one thing that confines, and on whose word.
type property struct{ Name, Text, Mark, Class string }

type agentRow struct {
	Claimed, Length, Name, Profile, CPU, Memory, Template string
	Task                                                  fleet.TaskID
	Node                                                  fleet.NodeID
}

// isolation shows the ways of being confined, and the agents.
func (v *view) isolation(e *fleet.Evidence) {
	for i := range e.Profiles {
		v.Profiles = append(v.Profiles, cardOf(i, &e.Profiles[i]))
	}
	for i := range e.Agents[:min(rowsOfAgents, len(e.Agents))] {
		a := &e.Agents[i]
		row := agentRow{
			Claimed: stamp(a.Claimed), Length: "still at work", Name: a.Name, Profile: letter(a.Profile), Template: a.Template, Task: a.Task, Node: a.Node,
			CPU: fmt.Sprintf("%.1f s, %.0f %%", a.CPUSeconds, 100*a.CPUShare), Memory: "not measured",
		}
		if !a.Gone.IsZero() {
			row.Length = seconds(a.Gone.Sub(a.Claimed).Seconds())
		}
		if a.MemoryPeak > 0 {
			row.Memory = fmt.Sprintf("%s, %.0f %%", size(a.MemoryPeak), 100*a.MemoryPart)
		}
		v.Agents = append(v.Agents, row)
	}
	v.FewAgents = len(v.Agents) <= few
	v.AgentsMore = len(e.Agents) - len(v.Agents) + e.MoreAgent
	v.AgentCount = fmt.Sprintf("%d agents, the newest first", len(v.Agents))
}

// letter names a profile: A, B, … Z, 27.
func letter(i int) string {
	if i < 26 {
		return string(rune('A' + i))
	}
	return strconv.Itoa(i + 1)
}

func cardOf(i int, p *fleet.EvidenceIsolation) profileCard {
	iso := &p.Isolation
	c := profileCard{
		Title: fmt.Sprintf("%s: %s", letter(i), orNone(string(iso.Runtime), "no runtime on record")),
		Count: fmt.Sprintf("%d sandboxes, %d of them with a task", p.Sandboxes, p.Agents), Lost: iso.Lost,
	}
	// by the kernel's word, where it was asked
	seen := func(name, text string, safe bool) {
		r := property{name, text, "observed", "good"}
		switch {
		case !p.Observed:
			r.Mark, r.Class = "not observed", ""
		case !safe:
			r.Class = "mid"
		}
		c.Rows = append(c.Rows, r)
	}
	set := func(name, text string) {
		c.Rows = append(c.Rows, property{name, text, "as set, not observed", ""})
	}
	yes := func(v bool, is, not string) string {
		if v {
			return is
		}
		return not
	}
	caps := "none"
	if len(iso.Capabilities) > 0 {
		caps = strings.Join(iso.Capabilities, ", ")
	}
	seen("User namespace", yes(iso.UserNamespace, "its own", "none: the agent's user is one of the host's"), iso.UserNamespace)
	seen("User of the agent", fmt.Sprintf("%d inside", iso.UID), iso.UID != 0)
	seen("Capabilities", caps, len(iso.Capabilities) == 0)
	seen("No new privileges", yes(iso.NoNewPrivs, "set", "not set"), iso.NoNewPrivs)
	seen("Seccomp", yes(iso.Seccomp, "a filter is on", "no filter"), iso.Seccomp)
	seen("Root file system", yes(iso.ReadOnlyRoot, "read-only", "writable"), iso.ReadOnlyRoot)
	set("Network", orNone(string(iso.Network), "not known"))
	set("Limits", limits(&p.Limits))
	set("Control groups, disk", orNone(iso.Cgroups, "not known")+", "+orNone(iso.Volume, "not known"))
	return c
}

func orNone(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func limits(r *fleet.Resources) string {
	return fmt.Sprintf("%.3g cores, memory %s, %d processes, disk %s", float64(r.MilliCPU)/1000, size(r.MemoryBytes), r.Pids, size(r.DiskBytes))
}

func size(b int64) string {
	const k = 1 << 10
	switch {
	case b >= k*k*k:
		return fmt.Sprintf("%.3g GiB", float64(b)/(k*k*k))
	case b >= k*k:
		return fmt.Sprintf("%.0f MiB", float64(b)/(k*k))
	}
	return fmt.Sprintf("%d KiB", b/k)
}
