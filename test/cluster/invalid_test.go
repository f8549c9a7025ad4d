package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kubetest "muster.dev/muster/test/kube"
)

// A fleet is made invalid while its tasks run, in ways that the API server takes;
// then its control plane is killed. The next one goes on with the last good spec
// from the store: the running tasks end in their first attempt, new ones run, the
// condition says what is wrong, and a fleet beside it knows nothing of it.
func TestNewLeaderFindsInvalidFleet(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 1, max: 4}}"))
	w.apply("beside", w.fleetSpec("capacity: {sandboxes: {min: 1, max: 2}}"))
	p := w.plane("serve", "").start()
	p.ready("agents")
	p.ready("beside")
	p.submit("agents", "before", 3, "sleep 20")
	p.started("agents", 3)
	// An outside queue is held by one process, which consumers cannot share: the
	// API server knows that, and says it to who asks.
	err := w.tryApply("agents", w.fleetSpec("queue: {type: redis, redis: {addresses: [\"127.0.0.1:1\"], list: {name: agents}}}\nconsumers: {replicas: 2}"))
	if err == nil || !strings.Contains(err.Error(), "queue.type: want embedded, or no consumers: one process holds the messages of an outside queue") {
		t.Errorf("consumers of an outside queue: %v", err)
	}
	w.apply("agents", w.fleetSpec(`capacity: {sandboxes: {min: 1, max: 4}, floors: [{cron: "0 25 * * *", for: 1h, min: 1}]}`))
	w.isInvalid("agents", "the last good spec goes on; spec.capacity.floors[0].cron", "; want ")
	p.kill()
	p.start()
	w.isInvalid("agents", "revision 1, the last good spec, goes on", "spec.capacity.floors[0].cron")
	p.ready("agents")
	p.submit("agents", "after", 2, "true")
	p.submit("beside", "beside", 2, "true")
	p.succeed("beside", 2, 3*time.Minute)
	for _, v := range p.succeed("agents", 5, 3*time.Minute) {
		if v.Attempt != 1 {
			t.Errorf("task %s took %d attempts: %s", v.Name, v.Attempt, v.Message)
		}
	}
	if twice := w.pods.twice(); len(twice) > 0 {
		t.Errorf("sandboxes created twice: %v", twice)
	}
	// Mended it is Ready, without another start of the control plane.
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 1, max: 5}}"))
	w.until(time.Minute, "the fleet is mended", func() error {
		if status, reason, message := w.condition("agents", "Degraded"); status != "False" {
			return fmt.Errorf("%s: %s", reason, message)
		}
		return nil
	})
	// Invalid again, and deleted while nobody leads: it is drained all the same, and
	// what runs may end.
	w.apply("agents", w.fleetSpec("capacity: {floors: [{cron: x, for: 1h, min: 1}]}"))
	w.isInvalid("agents", "spec.capacity.floors[0].cron")
	done := filepath.Join(openDir(t), "done")
	p.submit("agents", "last", 1, "sleep 12; echo > "+done)
	p.started("agents", 1)
	p.stop()
	w.drop("agents")
	w.drop("beside")
	p.start()
	w.gone("agents")
	w.gone("beside")
	if _, err := os.Stat(done); err != nil {
		t.Errorf("the task that ran did not come to its end: %v", err)
	}
	w.nothingLeft()
}

// openDir is a directory that every user may write into, as a task of a pod does.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-cluster-open-") //nolint:usetesting // a test's own is closed to other users
	if err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// isInvalid waits until a fleet works on and its condition has these words.
func (w *world) isInvalid(name string, words ...string) {
	w.t.Helper()
	w.until(2*time.Minute, "fleet "+name+" says what is wrong, and works on", func() error {
		status, reason, message := w.condition(name, "Degraded")
		for _, part := range words {
			if status != "True" || reason != "InvalidSpec" || !strings.Contains(message, part) {
				return fmt.Errorf("%s %s: %s (no %q)", status, reason, message, part)
			}
		}
		if status, reason, message := w.condition(name, "Ready"); status != "True" {
			return fmt.Errorf("not Ready: %s: %s", reason, message)
		}
		return nil
	})
}

// started waits until n tasks run.
func (p *plane) started(fleet string, n int) {
	p.w.t.Helper()
	p.w.until(2*time.Minute, "tasks run", func() error {
		running := 0
		for _, v := range p.mustTasks(fleet) {
			if v.State == "running" {
				running++
			}
		}
		if running < n {
			return fmt.Errorf("%d run", running)
		}
		return nil
	})
}
