package plan

import (
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// always is a boot time.
func always(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// every gives one task each period within a span.
func every(period, from, to time.Duration) func(time.Duration, int) int {
	return func(at time.Duration, _ int) int {
		if at >= from && at < to && at%period == 0 {
			return 1
		}
		return 0
	}
}

func scripts() []script {
	one := []string{"default"}
	boot := always(45 * time.Second)
	return []script{
		{
			name: "nodes_morning_burst", start: t0.Add(-5 * time.Minute), length: 40 * time.Minute, pools: one, service: 4 * time.Minute, boot: boot,
			arrive: func(at time.Duration, _ int) int {
				if at == 5*time.Minute {
					return 20
				}
				return every(3*time.Second, 5*time.Minute, 15*time.Minute)(at, 0)
			},
			floors: []Floor{{Template: "default", Name: "0 9 * * MON UTC", From: t0, Until: t0.Add(20 * time.Minute), Min: 10}},
		},
		{
			name: "nodes_night", start: t0.Add(11 * time.Hour), length: 2 * time.Hour, pools: one, service: 2 * time.Minute, boot: boot,
			arrive: every(5*time.Second, 0, 20*time.Minute),
		},
		{
			// Thursday afternoon: what has to be in the sprint is begun before
			// the demonstration at five.
			name: "sprint_end", start: time.Date(2026, 11, 26, 13, 0, 0, 0, time.UTC), length: 5 * time.Hour, pools: one, service: 6 * time.Minute, boot: boot,
			policy: func(p *Policy) { p.Nodes.Max = 20 },
			arrive: func(at time.Duration, _ int) int {
				switch quarter := at / (15 * time.Minute); {
				case at >= 4*time.Hour:
					return every(2*time.Minute, 0, 5*time.Hour)(at, 0)
				case at%(time.Minute/(1+quarter)).Round(time.Second) == 0:
					return 1
				}
				return 0
			},
		},
		{
			name: "stock_out", start: t0, length: 40 * time.Minute, pools: one, service: 3 * time.Minute, boot: boot,
			arrive: every(4*time.Second, 2*time.Minute, 30*time.Minute),
			stock:  func(at time.Duration) bool { return at < 4*time.Minute || at >= 14*time.Minute },
		},
		{
			name: "slow_boots", start: t0, length: time.Hour, pools: one, service: 3 * time.Minute,
			boot: func(at time.Duration) time.Duration {
				if at >= 10*time.Minute && at < 40*time.Minute {
					return 4 * time.Minute
				}
				return 45 * time.Second
			},
			arrive: func(at time.Duration, _ int) int {
				n := every(10*time.Second, 0, 50*time.Minute)(at, 0)
				return n + every(5*time.Second, 12*time.Minute, 40*time.Minute)(at, 0)
			},
		},
		{
			name: "budget_cap", start: t0, length: 90 * time.Minute, pools: []string{"batch", "urgent"}, service: 5 * time.Minute, boot: boot,
			policy: func(p *Policy) {
				p.First = "urgent"
				p.Templates["urgent"] = TemplatePolicy{Priority: 10}
				p.Budget.PerHour = 800_000
			},
			arrive: func(at time.Duration, pool int) int {
				if pool == 0 {
					return every(20*time.Second, 0, time.Hour)(at, 0)
				}
				return every(time.Minute, 0, time.Hour)(at, 0)
			},
		},
	}
}

// TestGoldenNodes tells stories of a fleet that brings its nodes, and checks in
// each second that it takes nothing from a running task.
func TestGoldenNodes(t *testing.T) {
	for _, c := range scripts() {
		t.Run(c.name, func(t *testing.T) {
			m := newClusterWorld(c)
			for at := time.Duration(0); at < c.length; at += time.Second {
				m.step(at)
				for i := range m.boxes {
					id := m.boxes[i].node
					if m.node(id).state == fleet.NodeBooting {
						t.Fatalf("%s: a sandbox on a node that boots", at)
					}
				}
			}
			golden(t, c.name, m.report())
		})
	}
}
