package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

var topNow = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// topFleet is a fleet at work, with what is hostile in its names.
func topFleet() *topSeen {
	v := &topSeen{Fleet: v1alpha1.FleetView{
		Name: "agents", At: topNow, Started: topNow.Add(-time.Hour), Sentence: "default: 3 tasks wait; want 14 (bound: capacity.sandboxes.max = 12)",
		Backlog: 3, OldestAgeSeconds: 2.5, Consumers: 12, ConsumersBusy: 10, InFlight: 10, NodeHourUSD: 0.4,
		Start:    v1alpha1.StartView{P50Seconds: .003, P99Seconds: .04, ObjectiveSeconds: 5},
		Reaction: v1alpha1.FleetReaction{WithinSeconds: 60, ScaleOut: fleet.ScaleOut{Samples: 7, P50Seconds: 1.2, P95Seconds: 48, MaxSeconds: 52.5}},
		Pools: []v1alpha1.PoolView{{Pool: "default", Template: "default", Ready: 2, Running: 10},
			{Pool: "broken", Template: "broken", Breaker: v1alpha1.BreakerView{Open: true, Failures: 3, Reason: "exit 3"}}},
		Nodes: []fleet.NodeView{{Node: fleet.Node{ID: "n1", State: fleet.NodeReady, Slots: 16}, Used: 12}, {Node: fleet.Node{ID: "n2", State: fleet.NodeBooting}}},
	}}
	for i := range 12 {
		s := v1alpha1.SandboxView{ID: fleet.SandboxID(fmt.Sprintf("s%020d", i)), Pool: "default", Node: "n1", State: fleet.SandboxClaimed, Task: fleet.TaskID(fmt.Sprintf("t%020d", i)), CreatedAt: topNow.Add(-time.Duration(i) * time.Minute)}
		s.Usage.CPUNow, s.Usage.MemoryBytes, s.Usage.Pids = float64(i%5)/4, int64(12-i)<<20, 3
		if i > 9 {
			s.State, s.Task = fleet.SandboxReady, ""
		}
		v.Sandboxes = append(v.Sandboxes, s)
	}
	v.Sandboxes[3].Pool = "evil\x1b]0;owned\x07"
	for i := range 8 {
		v.Events = append(v.Events, fleet.Event{At: topNow, Kind: "scale_out", Reason: fmt.Sprintf("event %d: \x1b[2Jwant 12", i)})
	}
	return v
}

// TestTopFits every terminal: never more lines or columns than there are, the
// last line says the keys, and nothing of others reaches the terminal unescaped.
func TestTopFits(t *testing.T) {
	for w := 20; w <= 160; w += 7 {
		for h := 3; h <= 60; h += 3 {
			text := drawTop(topFleet(), topHow{width: w, height: h, sort: "cpu", now: topNow})
			lines := strings.Split(text, "\n")
			if len(lines) != h || !strings.HasPrefix(lines[h-1], "q quit") {
				t.Fatalf("%d by %d: %d lines, the last %q", w, h, len(lines), lines[len(lines)-1])
			}
			for _, l := range lines {
				if terminal.Width(l) > max(w, 40) || strings.ContainsAny(l, "\x1b\x07") {
					t.Fatalf("%d by %d: %q is %d wide", w, h, l, terminal.Width(l))
				}
			}
		}
	}
}

// TestTopLooks keeps what it draws at three sizes, and where there is no
// terminal.
func TestTopLooks(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {40, 15}, {0, 0}} {
		name := fmt.Sprintf("testdata/top/%dx%d.txt", size[0], size[1])
		got := drawTop(topFleet(), topHow{width: size[0], height: size[1], sort: "cpu", now: topNow}) + "\n"
		if os.Getenv("UPDATE_TOP") != "" {
			if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(name); err != nil || got != string(want) {
			t.Errorf("%s is not what is drawn (%v); UPDATE_TOP=1 writes it anew:\n%s", name, err, got)
		}
	}
}

// TestTopReaction: a worst reaction beyond the promise is red, and none yet is
// no reaction of 0 s.
func TestTopReaction(t *testing.T) {
	v := topFleet()
	for _, x := range []struct {
		worst float64
		n     int
		want  string
	}{{52.5, 7, "\x1b[31mreaction"}, {61, 7, "\x1b[31mreaction worst 1m1s of 1m promised"}, {0, 0, "no task has found the stock empty yet; 1m are promised"}} {
		v.Fleet.Reaction.MaxSeconds, v.Fleet.Reaction.Samples = x.worst, x.n
		got := drawTop(v, topHow{width: 120, height: 30, colour: true, now: topNow})
		if strings.Contains(got, x.want) != (x.worst != 52.5) {
			t.Errorf("worst %g of %d: %q in %q", x.worst, x.n, x.want, got)
		}
	}
}

func key(s string) tea.KeyPressMsg {
	switch s {
	case "enter":
		return tea.KeyPressMsg{Code: tea.KeyEnter}
	case "esc":
		return tea.KeyPressMsg{Code: tea.KeyEscape}
	case "backspace":
		return tea.KeyPressMsg{Code: tea.KeyBackspace}
	}
	return tea.KeyPressMsg{Code: []rune(s)[0], Text: s}
}

// TestTopKeys: sort, filter, and the end; a look that fails keeps the picture
// and says so.
func TestTopKeys(t *testing.T) {
	m := &topModel{topHow: topHow{sort: "cpu"}, seen: topFleet(), every: time.Second, clock: func() time.Time { return topNow },
		look: func(context.Context) (*topSeen, error) { return nil, errors.New("connection refused") }, ctx: t.Context()}
	if m.draw() != "" {
		t.Error("draws before it knows the size")
	}
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 40})
	first := func() string {
		for _, l := range strings.Split(m.draw(), "\n") {
			if strings.HasPrefix(l, "s0") {
				return strings.Fields(l)[0]
			}
		}
		return ""
	}
	if got := first(); got != "s00000000000000000004" {
		t.Errorf("by cpu %s leads", got)
	}
	m.Update(key("s"))
	if got := first(); got != "s00000000000000000000" || !strings.Contains(m.draw(), "sort: memory") {
		t.Errorf("by memory %s leads", got)
	}
	for _, k := range []string{"/", "r", "e", "a", "d", "x", "backspace", "y"} {
		m.Update(key(k))
	}
	if !strings.Contains(m.draw(), "filter: ready▏") || strings.Contains(m.draw(), "running  0.") || first() != "s00000000000000000010" {
		t.Errorf("filtered by ready:\n%s", m.draw())
	}
	if _, cmd := m.Update(key("q")); cmd != nil || m.filter != "readyq" {
		t.Error("a q that is typed ends it")
	}
	m.Update(key("enter"))
	m.Update(key("esc"))
	if m.filter != "" || m.typing {
		t.Errorf("after Esc the filter is %q", m.filter)
	}
	_, cmd := m.Update(lookAgain{})
	m.Update(cmd())
	if !strings.Contains(m.draw(), "not up to date since") || !strings.Contains(m.draw(), "connection refused") || !strings.Contains(m.draw(), "3 waiting") {
		t.Errorf("after a look that failed:\n%s", m.draw())
	}
	m.Update(looked{seen: topFleet()})
	if strings.Contains(m.draw(), "connection refused") {
		t.Error("it goes on complaining")
	}
	for _, k := range []tea.KeyPressMsg{key("q"), {Code: 'c', Mod: tea.ModCtrl}} {
		if _, cmd := m.Update(k); cmd == nil || cmd() != tea.Quit() {
			t.Errorf("%s does not end it", k)
		}
	}
}

// TestTopOnATerminal: live in the alternate screen, keys, and the terminal as it
// was at the end.
func TestTopOnATerminal(t *testing.T) {
	s := onTerminal(t, serverForTest(t), "top", "--every", "200ms")
	s.await("SANDBOXES")
	s.await("sort: cpu")
	s.press("s")
	s.await("memory")
	s.press("q")
	if code := s.end(); code != 0 || !strings.Contains(s.text(), "\x1b[?1049h") || !strings.Contains(s.text(), "\x1b[?1049l") {
		t.Errorf("exit %d: %q", code, s.text())
	}
	if !strings.Contains(s.text(), "\x1b[?25h") {
		t.Error("the cursor stays hidden")
	}
}
