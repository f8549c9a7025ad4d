package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/kube"
	kubetest "muster.dev/muster/test/kube"
)

// Nodes boot for tasks that wait; each task runs once, in a sandbox of its
// own, on a node of the group; when the fleet is deleted nothing is left.
func TestFromNothing(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	w.apply("agents", w.fleetSpec(""))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.submit("agents", "first", 50, "echo done in $HOSTNAME; sleep 0.2")
	done := p.succeed("agents", 50, 3*time.Minute)
	boxes := map[string]bool{}
	for _, v := range done {
		if v.Sandbox == "" || boxes[string(v.Sandbox)] {
			t.Errorf("task %s ran in sandbox %q, as another did", v.Name, v.Sandbox)
		}
		boxes[string(v.Sandbox)] = true
		if !strings.HasPrefix(string(v.Node), w.ns) {
			t.Errorf("task %s ran on node %q, which is not of the group", v.Name, v.Node)
		}
		if v.Attempt != 1 {
			t.Errorf("task %s took %d attempts", v.Name, v.Attempt)
		}
	}
	if n := w.group.Requested(); n < 7 || n > 20 { // a fleet without history expects more of a first burst: docs/policy.md
		t.Errorf("%d nodes were asked for 50 tasks at 8 a node", n)
	}
	if twice := w.pods.twice(); len(twice) > 0 {
		t.Errorf("sandboxes created twice: %v", twice)
	}
	w.remove("agents")
	w.nothingLeft()
}

// A burst brings nodes, its end returns them; no busy sandbox is ever deleted.
func TestBurstDrainNight(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{inProcess: true, group: kubetest.GroupOptions{ScaleDown: 2 * time.Second}})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 2, max: 120}}\nscaling: {holdWarm: 1s}\nobjective: {startP99: 60s}"))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.submit("agents", "burst", 80, "sleep 1")
	p.succeed("agents", 80, 3*time.Minute)
	peak := len(w.group.Nodes())
	w.until(2*time.Minute, "the night is cheap", func() error {
		if n := len(w.group.Nodes()); n > 2 {
			return fmt.Errorf("%d nodes of %d are left", n, peak)
		}
		return nil
	})
	for _, v := range p.mustTasks("agents") {
		if v.Attempt != 1 {
			t.Errorf("task %s took %d attempts: %s", v.Name, v.Attempt, v.Message)
		}
	}
}

// The node of running tasks is lost: they run again elsewhere.
func TestNodeLost(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 0, max: 16}}"))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.submit("agents", "long", 6, "sleep 8")
	var node string
	w.until(time.Minute, "all six run", func() error {
		running := 0
		for _, v := range p.mustTasks("agents") {
			if v.State == "running" {
				running++
				node = string(v.Node)
			}
		}
		if running < 6 {
			return fmt.Errorf("%d run", running)
		}
		return nil
	})
	w.group.Kill(node)
	again := 0
	for _, v := range p.succeed("agents", 6, 2*time.Minute) {
		if v.Attempt > 1 {
			again++
			if string(v.Node) == node {
				t.Errorf("task %s ran again on the node that was lost", v.Name)
			}
		}
	}
	if again == 0 {
		t.Error("no task ran again, though its node was lost")
	}
}

// An image that cannot be pulled opens the breaker: few pods are created, the
// reason is on record, and other templates go on.
func TestImageThatCannotBePulled(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	w.apply("agents", w.fleetSpec(strings.ReplaceAll(`
templates:
- {name: good, image: example.test/agent:1, resources: {cpus: 1, memory: 1Gi, disk: 1Gi}}
- {name: bad, image: example.test/no-such-image:1, min: 5, resources: {cpus: 1, memory: 1Gi, disk: 1Gi}}
`, "\t", " ")))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.submit("agents", "good", 3, "true")
	p.succeed("agents", 3, 2*time.Minute)
	w.until(30*time.Second, "the breaker says why", func() error {
		for _, r := range p.events("agents", "sandbox_failed") {
			if strings.Contains(r, "no-such-image") {
				return nil
			}
		}
		return fmt.Errorf("no event names the image")
	})
	time.Sleep(10 * time.Second) // what a loop would do in the meantime is the point
	if bad := w.pods.ofTemplate("bad"); bad > 20 {
		t.Errorf("%d sandboxes were created in a quarter of a minute for a template that cannot start", bad)
	}
}

// The control plane is killed again and again while it applies: every task
// succeeds once, no sandbox is created twice, and nothing is left in the end.
func TestKilledMidApply(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 3, max: 40}}"))
	p := w.plane("serve", "").start()
	p.ready("agents")
	for round := range 4 {
		p.submit("agents", fmt.Sprint("round", round), 8, "sleep 0.5")
		time.Sleep(time.Duration(100+300*round) * time.Millisecond) // somewhere in the middle
		p.kill()
		p.start()
		p.ready("agents")
	}
	for _, v := range p.succeed("agents", 32, 3*time.Minute) {
		if v.Attempt > 4 {
			t.Errorf("task %s took %d attempts", v.Name, v.Attempt)
		}
	}
	if twice := w.pods.twice(); len(twice) > 0 {
		t.Errorf("sandboxes created twice: %v", twice)
	}
	w.remove("agents")
	w.nothingLeft()
}

// A rollout of the control plane does not hurt what runs.
func TestRollout(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 2, max: 8}}"))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.submit("agents", "long", 2, "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 1; done")
	w.until(time.Minute, "both run", func() error {
		for _, v := range p.mustTasks("agents") {
			if v.State != "running" {
				return fmt.Errorf("%s is %s", v.Name, v.State)
			}
		}
		return nil
	})
	p.stop()
	p.start()
	for _, v := range p.succeed("agents", 2, time.Minute) {
		if v.Attempt != 1 || v.LogBytes != int64(len("line 1\n")*9+len("line 10\n")) {
			t.Errorf("task %s: %d attempts, %d bytes of log", v.Name, v.Attempt, v.LogBytes)
		}
	}
}

// The API server is away in the middle of a burst: what runs goes on, what
// waits starts once it is back, and nothing is lost.
func TestAPIServerAway(t *testing.T) {
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 2}})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 4, max: 16}}"))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.submit("agents", "before", 10, "sleep 3")
	time.Sleep(time.Second)
	w.c.StopAPIServer()
	away := 12 * time.Second
	if slow() {
		away = time.Minute
	}
	p.submit("agents", "while", 10, "sleep 0.2") // accepted all the same
	time.Sleep(away)
	w.c.StartAPIServer()
	for _, v := range p.succeed("agents", 20, 2*time.Minute) {
		if v.Attempt != 1 {
			t.Errorf("task %s took %d attempts: %s", v.Name, v.Attempt, v.Message)
		}
	}
	if twice := w.pods.twice(); len(twice) > 0 {
		t.Errorf("sandboxes created twice: %v", twice)
	}
}

// 1,000 sandboxes on 125 nodes, or 200 on 25.
func TestMany(t *testing.T) {
	t.Parallel()
	n, script := 200, "sleep 10"
	if slow() {
		n, script = 1000, "sleep 90" // longer than it takes here to make so many pods
	}
	w := setUp(t, options{inProcess: true, group: kubetest.GroupOptions{Max: n/8 + 5, Boot: time.Second}})
	w.apply("agents", w.fleetSpec(fmt.Sprintf("capacity: {sandboxes: {min: 0, max: %d}}\nnodes: {provider: kubernetes, slots: 8, max: %d, boot: 5s, kubernetes: {nodeSelector: {pool: %s}}}", n, n/8+5, w.ns)))
	p := w.plane("serve", "").start()
	p.ready("agents")
	begin := time.Now()
	p.submit("agents", "many", n, script)
	w.until(5*time.Minute, "all run at once", func() error {
		running := 0
		for _, v := range p.mustTasks("agents") {
			if v.State == "running" {
				running++
			}
		}
		if _, _, peak := w.pods.counts(); running < n*9/10 && peak < n*9/10 {
			return fmt.Errorf("%d run, at most %d sandboxes at once", running, peak)
		}
		return nil
	})
	ran := time.Since(begin)
	created, seats, peak := w.pods.counts() // what is kept warm later is another matter
	p.succeed("agents", n, 5*time.Minute)
	t.Logf("%d tasks: %d sandboxes and %d seats created, at most %d at once, %d nodes asked for; all ran %s after they were submitted, done after %s",
		n, created, seats, peak, w.group.Requested(), ran.Round(100*time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
	if created > n*3/2 || w.group.Requested() > n/8+5 {
		t.Errorf("%d sandboxes created, %d nodes asked for, for %d tasks", created, w.group.Requested(), n)
	}
}

// A pod of others on a node for agents is seen and named.
func TestDedicatedNodesAreWatched(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	w.apply("agents", w.fleetSpec(""))
	p := w.plane("serve", "").start()
	p.ready("agents")
	stranger := &corev1.Pod{Spec: corev1.PodSpec{
		NodeName: w.group.Nodes()[0], Containers: []corev1.Container{{Name: "db", Image: "example.test/db:1", Command: []string{"sleep", "600"}}},
		Tolerations: []corev1.Toleration{{Key: kube.TaintDedicated, Operator: corev1.TolerationOpExists}},
	}}
	stranger.Name = "production-database"
	w.create(stranger)
	w.until(time.Minute, "the breach is on record", func() error {
		for _, r := range p.events("agents", "dedication_breach") {
			if strings.Contains(r, "production-database") {
				return nil
			}
		}
		return fmt.Errorf("no event names the pod")
	})
}
