package plan

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

var update = flag.Bool("update", false, "write the golden files")

// scenario is a small world that a policy sizes: tasks arrive by a script,
// starts take a lead time, tasks a service time. Its output is a plot and the
// story of reasons, kept in testdata.
type scenario struct {
	name    string
	start   time.Time
	length  time.Duration
	lead    time.Duration
	service time.Duration
	policy  func(*Policy)
	arrive  func(at time.Duration) int // tasks in the second that begins at at
	broken  func(at time.Duration) bool
	outage  func(at time.Duration) bool
	clock   func(at time.Duration) time.Duration // error of the clock
	floors  []Floor
	nodes   int // slots of the one node
}

// simulation is the state of the world; one step is a second.
type simulation struct {
	c        scenario
	p        Policy
	s        State
	starting []time.Duration // ready at
	ready    []Idle
	draining []Idle
	running  []time.Duration // done at
	queue    []time.Duration // arrived at
	arrived  int64
	started  int64
	failed   int64
	finished int64
	next     int
	waits    []time.Duration
	starts   int
	last     string
	told     map[string]time.Duration
	story    bytes.Buffer
	plot     []sample
}

type sample struct{ demand, supply, ready int }

func (m *simulation) step(at time.Duration) {
	m.settle(at)
	for range m.c.arrive(at) {
		m.queue = append(m.queue, at)
		m.arrived++
	}
	m.dispatch(at)
	now := m.c.start.Add(at)
	if m.c.clock != nil {
		now = now.Add(m.c.clock(at))
	}
	p, s := Decide(now, m.observe(now, at), m.p, m.s)
	m.s = s
	m.apply(p, now, at)
	m.dispatch(at)
	m.plot = append(m.plot, sample{len(m.queue) + len(m.running), len(m.starting) + len(m.ready) + len(m.running), len(m.ready)})
}

// settle ends what is due: starts, and tasks with their sandboxes.
func (m *simulation) settle(at time.Duration) {
	later := m.starting[:0]
	for _, t := range m.starting {
		switch {
		case t > at:
			later = append(later, t)
		case m.c.broken != nil && m.c.broken(at):
			m.failed++
		default:
			m.started++
			m.next++
			now := m.c.start.Add(at)
			m.ready = append(m.ready, Idle{ID: fleet.SandboxID(fmt.Sprint("s", m.next)), Node: "local", Created: now, Since: now})
		}
	}
	m.starting = later
	busy := m.running[:0]
	for _, t := range m.running {
		if t > at {
			busy = append(busy, t)
		} else {
			m.finished++
		}
	}
	m.running = busy
}

func (m *simulation) dispatch(at time.Duration) {
	for len(m.queue) > 0 && len(m.ready) > 0 {
		m.waits = append(m.waits, at-m.queue[0])
		m.queue, m.ready = m.queue[1:], m.ready[1:]
		m.running = append(m.running, at+m.c.service)
	}
}

func (m *simulation) observe(now time.Time, at time.Duration) Observation {
	x := Pool{
		Key: "default", Template: "default", Revision: "r1", Size: Size{1000, 1 << 30, 1},
		Ready: len(m.ready), Starting: len(m.starting), Running: len(m.running), Idle: m.ready, Draining: m.draining,
		Lead:    fleet.Lead{P50: m.c.lead, P95: m.c.lead, P99: m.c.lead, Samples: 1},
		Started: m.started, Failed: m.failed, Finished: m.finished, Proven: true,
	}
	if m.failed > 0 {
		x.Failure = "prepare: npm ci: exit code 1"
	}
	q := Queue{Name: "q", AsOf: now}
	if m.c.outage != nil && m.c.outage(at) {
		q.Error = "connection refused"
	} else {
		d := Demand{Pool: "default", Backlog: len(m.queue), InFlight: len(m.running), Arrived: m.arrived}
		if len(m.queue) > 0 {
			d.Oldest = m.c.start.Add(m.queue[0])
		}
		q.Pools = []Demand{d}
	}
	n := node(m.c.nodes)
	n.Used = len(m.ready) + len(m.starting) + len(m.running) + len(m.draining)
	return Observation{Queues: []Queue{q}, Pools: []Pool{x}, Nodes: []Node{n}, Floors: m.c.floors}
}

func (m *simulation) apply(p Plan, now time.Time, at time.Duration) {
	did := map[Kind]int{}
	for _, a := range p.Actions {
		did[a.Kind] += max(1, a.N)
		switch a.Kind {
		case StartSandboxes:
			for range a.N {
				m.starting = append(m.starting, at+m.c.lead)
				m.starts++
			}
		case DrainSandbox:
			b := take(&m.ready, a.Sandbox)
			b.Since = now
			m.draining = append([]Idle{b}, m.draining...)
		case UndrainSandbox:
			m.ready = append(m.ready, take(&m.draining, a.Sandbox))
		case DestroySandbox:
			take(&m.draining, a.Sandbox)
		}
	}
	r := p.Pools[0].Reason
	var acts []string
	for _, k := range []Kind{StartSandboxes, UndrainSandbox, DrainSandbox, FailWaiting} {
		if did[k] > 0 {
			acts = append(acts, string(k))
		}
	}
	doing := strings.Join(acts, "+")
	// The same kind of news is told once in three minutes.
	key := fmt.Sprint(r.Cause, r.Bound, doing)
	if told, ok := m.told[key]; (!ok || at-told >= 3*time.Minute) && key != m.last {
		fmt.Fprintf(&m.story, "%8s  %-9s %s\n", at, doing, r.Sentence())
		m.told[key] = at
	}
	m.last = key
}

func take(list *[]Idle, id fleet.SandboxID) (b Idle) {
	for i := range *list {
		if (*list)[i].ID == id {
			b = (*list)[i]
			rest := append([]Idle{}, (*list)[:i]...)
			*list = append(rest, (*list)[i+1:]...)
			return b
		}
	}
	return b
}

// draw plots demand (*), supply (#) and ready (r) against time.
func (m *simulation) draw() string {
	points := make([][]int, len(m.plot))
	for i, s := range m.plot {
		points[i] = []int{s.ready, s.supply, s.demand}
	}
	return fmt.Sprintf("* demand   # supply   r ready, most in each of %s\n", m.c.length/chartWidth) + chart(16, "r#*", points)
}

const chartWidth = 100

// chart plots several series against time, each with its mark; the later ones
// cover the earlier. Boots (b) are drawn where there are any.
func chart(height int, marks string, points [][]int) string {
	top := 1
	for _, p := range points {
		top = max(top, slices.Max(p))
	}
	rows := make([][]byte, height+1)
	for i := range rows {
		rows[i] = bytes.Repeat([]byte{' '}, chartWidth)
	}
	for col := range chartWidth {
		from, to := col*len(points)/chartWidth, (col+1)*len(points)/chartWidth
		for k, mark := range []byte(marks) {
			most := 0
			for _, p := range points[from:max(to, from+1)] {
				most = max(most, p[k])
			}
			if most > 0 || mark != 'b' {
				rows[height-most*height/top][col] = mark
			}
		}
	}
	var b strings.Builder
	for i, row := range rows {
		label := ""
		if i%4 == 0 {
			label = fmt.Sprint((height - i) * top / height)
		}
		fmt.Fprintf(&b, "%5s |%s\n", label, strings.TrimRight(string(row), " "))
	}
	return b.String()
}

func (m *simulation) summary() string {
	late, worst := 0, time.Duration(0)
	for _, w := range m.waits {
		worst = max(worst, w)
		if w > m.p.Objective {
			late++
		}
	}
	return fmt.Sprintf("tasks %d, started %d, still waiting %d, longest wait %s, over the objective of %s %d, starts %d, failed %d\n",
		m.arrived, len(m.waits), len(m.queue), worst, m.p.Objective, late, m.starts, m.failed)
}

func scenarios() []scenario {
	minute := func(at time.Duration) bool { return at%time.Minute == 0 }
	between := func(at, from, to time.Duration) bool { return at >= from && at < to }
	return []scenario{
		{
			name: "morning_burst", start: t0.Add(-5 * time.Minute), length: 30 * time.Minute, lead: 2 * time.Second, service: 4 * time.Minute, nodes: 400,
			arrive: func(at time.Duration) int {
				switch {
				case at == 5*time.Minute:
					return 20
				case between(at, 5*time.Minute, 15*time.Minute) && at%(3*time.Second) == 0:
					return 1
				}
				return 0
			},
			floors: []Floor{{Template: "default", Name: "0 9 * * MON UTC", From: t0, Until: t0.Add(20 * time.Minute), Min: 10}},
		},
		{
			name: "night", start: t0.Add(11 * time.Hour), length: 2 * time.Hour, lead: 2 * time.Second, service: time.Minute, nodes: 400,
			policy: func(p *Policy) { p.Min = 2 },
			arrive: func(at time.Duration) int {
				if between(at, 0, 20*time.Minute) && at%(5*time.Second) == 0 {
					return 1
				}
				return 0
			},
		},
		{
			name: "queue_outage", start: t0, length: 30 * time.Minute, lead: 2 * time.Second, service: time.Minute, nodes: 400,
			arrive: func(at time.Duration) int {
				if at%(2*time.Second) == 0 && at < 25*time.Minute {
					return 1
				}
				return 0
			},
			outage: func(at time.Duration) bool { return between(at, 8*time.Minute, 18*time.Minute) },
		},
		{
			name: "broken_template", start: t0, length: 30 * time.Minute, lead: 3 * time.Second, service: time.Minute, nodes: 400,
			arrive: func(at time.Duration) int {
				if minute(at) && at < 20*time.Minute {
					return 3
				}
				return 0
			},
			broken: func(at time.Duration) bool { return between(at, 4*time.Minute, 15*time.Minute) },
		},
		{
			name: "flapping", start: t0, length: 30 * time.Minute, lead: 2 * time.Second, service: 20 * time.Second, nodes: 400,
			arrive: func(at time.Duration) int {
				if at%(90*time.Second) == 0 {
					return 8
				}
				return 0
			},
		},
		{
			name: "clock_jump", start: t0, length: 20 * time.Minute, lead: 2 * time.Second, service: 30 * time.Second, nodes: 400,
			arrive: func(at time.Duration) int {
				if at%(4*time.Second) == 0 && at < 15*time.Minute {
					return 1
				}
				return 0
			},
			clock: func(at time.Duration) time.Duration {
				switch {
				case between(at, 5*time.Minute, 10*time.Minute):
					return -time.Hour
				case at >= 10*time.Minute:
					return 2 * time.Hour
				}
				return 0
			},
		},
		{
			// 29 March 2026, 01:00 UTC: the clocks in Warsaw jump from 02:00 to
			// 03:00. A floor at 02:30 local opens at the end of the gap, once.
			name: "dst", start: time.Date(2026, 3, 29, 0, 50, 0, 0, time.UTC), length: 40 * time.Minute, lead: 10 * time.Second, service: time.Minute, nodes: 400,
			arrive: func(time.Duration) int { return 0 },
			floors: floorsOf("30 2 * * *", "Europe/Warsaw", time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), 20*time.Minute, 6),
		},
		{
			name: "cap_binds", start: t0, length: 20 * time.Minute, lead: 2 * time.Second, service: 2 * time.Minute, nodes: 12,
			policy: func(p *Policy) { p.Min = 2 },
			arrive: func(at time.Duration) int {
				if at == time.Minute {
					return 40
				}
				return 0
			},
		},
	}
}

func TestGolden(t *testing.T) {
	for _, c := range scenarios() {
		t.Run(c.name, func(t *testing.T) {
			p := policy()
			if c.policy != nil {
				c.policy(&p)
			}
			m := &simulation{c: c, p: p, told: map[string]time.Duration{}}
			for at := time.Duration(0); at < c.length; at += time.Second {
				m.step(at)
			}
			got := "# " + c.name + "\n" + m.summary() + "\n" + m.draw() + "\n" + m.story.String()
			golden(t, c.name, got)
		})
	}
}

// golden compares with what testdata holds.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("behaviour changed; look at the difference, then run with -update\n%s", got)
	}
}
