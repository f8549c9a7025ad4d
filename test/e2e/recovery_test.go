package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var kills = flag.Int("kills", 100, "how often TestKillNine kills the control plane")

const smallFleet = `
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: e2e}
spec:
  templates:
    - name: default
      runtime: runc
      image: host
      resources: {cpus: 1, memory: 256Mi, pids: 64, disk: 64Mi}
      network: {mode: none}
      timeouts: {queue: 1h, startup: 60s, run: 5m}
  capacity:
    sandboxes: {min: 3, max: 8}
  nodes: {provider: host, slots: 8, overcommitMemory: 8}
`

type submitted struct {
	Tasks []struct {
		ID string `json:"id"`
	} `json:"tasks"`
}

type taskView struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Reason   string `json:"reason"`
	Message  string `json:"message"`
	Attempt  int    `json:"attempt"`
	ExitCode int    `json:"exitCode"`
	Sandbox  string `json:"sandbox"`
}

// TestKillNine kills the control plane again and again, at any moment, under
// load: no accepted task is lost, none is completed twice, running sandboxes
// go on and are adopted, and in the end nothing is left on the host.
func TestKillNine(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	var (
		mu       sync.Mutex
		accepted []string
	)
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range *kills {
		for range 1 + rng.IntN(3) {
			// Two in three are short; the third lives through a kill or two.
			body := "echo begin; echo end"
			if rng.IntN(3) == 0 {
				body = fmt.Sprintf("echo begin; sleep %.2f; echo end", 0.3+rng.Float64())
			}
			var s submitted
			_, err := m.api("POST", "/v1/tasks", map[string]any{"tasks": []any{map[string]any{
				"name": fmt.Sprintf("k%d", round), "command": []string{"/bin/sh", "-c", body},
			}}}, &s)
			if err != nil {
				t.Fatalf("round %d: submit: %v", round, err)
			}
			mu.Lock()
			accepted = append(accepted, s.Tasks[0].ID)
			mu.Unlock()
		}
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond) // where in its work the process is hit is the point
		m.kill()
		m.start()
	}
	for _, id := range accepted {
		m.waitFinal(id)
	}
	resumed := m.checkExactlyOnce(accepted)
	if resumed == 0 {
		t.Error("no running task was ever taken over: the kills hit nothing of interest")
	}
	t.Logf("%d kills, %d tasks accepted, running tasks were taken over %d times", *kills, len(accepted), resumed)
	m.stop()
	m.destroyAll()
	if left := m.traces(); len(left) != 0 {
		t.Errorf("left on the host after the fleet was stopped:\n%s", strings.Join(left, "\n"))
	}
}

func (m *machine) waitFinal(id string) taskView {
	m.t.Helper()
	var v taskView
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		if _, err := m.api("GET", "/v1/tasks/"+id+"/wait?timeout=30s", nil, &v); err != nil {
			m.t.Fatalf("wait for %s: %v", id, err)
		}
		switch v.State {
		case "succeeded", "failed", "timed_out", "cancelled", "lost":
			return v
		}
	}
	m.t.Fatalf("task %s is still %s (attempt %d) after 2 min", id, v.State, v.Attempt)
	return v
}

// checkExactlyOnce looks at what the store recorded: each task succeeded, was
// settled by one event only, and the log of its last attempt is whole. It
// returns how often a running task was taken over by a new control plane.
func (m *machine) checkExactlyOnce(ids []string) (resumed int) {
	m.t.Helper()
	settled := map[string]int{}
	after := int64(0)
	for {
		var page struct {
			Events []struct {
				Seq  int64  `json:"seq"`
				Kind string `json:"kind"`
				Task string `json:"task"`
			} `json:"events"`
		}
		if _, err := m.api("GET", fmt.Sprintf("/v1/events?after=%d&limit=1000", after), nil, &page); err != nil {
			m.t.Fatal(err)
		}
		if len(page.Events) == 0 {
			break
		}
		for _, e := range page.Events {
			after = e.Seq
			switch e.Kind {
			case "task_settled":
				settled[e.Task]++
			case "task_resumed":
				resumed++
			}
		}
	}
	retried := 0
	for _, id := range ids {
		v := m.waitFinal(id)
		if v.State != "succeeded" {
			m.t.Errorf("task %s: %s %s %q", id, v.State, v.Reason, v.Message)
		}
		if v.Attempt > 1 {
			retried++
		}
		if settled[id] > 1 {
			m.t.Errorf("task %s was completed %d times", id, settled[id])
		}
		if out := m.must("logs", id); !strings.HasSuffix(out, "begin\nend\n") || strings.Count(out, "end\n") != 1 {
			m.t.Errorf("log of task %s is not whole: %q", id, out)
		}
	}
	m.t.Logf("%d of %d tasks needed another attempt", retried, len(ids))
	return resumed
}

// TestSecondUp: a second control plane on one data directory says so and
// harms nothing.
func TestSecondUp(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	out, err := exec.Command(filepath.Join(binDir, "muster"), "up", "--data", m.data, "--fleet", m.fleet,
		"--listen", "127.0.0.1:0", "--runner", filepath.Join(binDir, "muster-runner")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by muster") {
		t.Fatalf("second muster up: %v\n%s", err, out)
	}
	if got := m.must("submit", "--wait", "--follow", "--", "/bin/echo", "still here"); !strings.Contains(got, "still here") {
		t.Fatalf("the first control plane no longer works: %q", got)
	}
}
