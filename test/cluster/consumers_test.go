package cluster

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	kubetest "muster.dev/muster/test/kube"
)

// A leader and two consumers on one PostgreSQL: tasks run at both, requests
// reach them through the leader, and one is killed in the middle of a burst. All
// tasks end once, without another attempt for those that ran on.
func TestConsumerIsKilled(t *testing.T) {
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 2}})
	store := newDatabase(t)
	spec := w.fleetSpec("capacity: {sandboxes: {min: 4, max: 16}}\nconsumers: {replicas: 2}")
	w.apply("agents", spec)
	leader := w.plane("leader", "", "--store", store).start()
	leader.ready("agents")
	one := w.consumer("one", leader, "agents", store).start()
	two := w.consumer("two", leader, "agents", store).start()
	w.until(30*time.Second, "both consumers are there", func() error {
		if status, reason, message := w.condition("agents", v1alpha1.ConditionConsumersReady); status != "True" {
			return fmt.Errorf("%s %s: %s", status, reason, message)
		}
		return nil
	})
	leader.submit("agents", "task", 30, "sleep 12")
	w.until(2*time.Minute, "tasks run at both", func() error {
		at := leader.runningAt("agents", one, two)
		if at[one] < 2 || at[two] < 2 {
			return fmt.Errorf("%d and %d", at[one], at[two])
		}
		return nil
	})
	t.Cleanup(func() {
		if t.Failed() && leader.running() {
			t.Logf("the newest events: %s", strings.Join(leader.events("agents", ""), "\n"))
		}
	})
	leader.reaches("agents")
	one.kill()
	died := time.Now()
	for _, v := range leader.succeed("agents", 30, 4*time.Minute) {
		if v.Attempt > 2 {
			t.Errorf("task %s took %d attempts: %s", v.Name, v.Attempt, v.Message)
		}
		if v.Attempt == 2 {
			t.Logf("task %s was tried again: %s", v.Name, v.Message)
		}
	}
	t.Logf("all had ended %s after the kill", time.Since(died).Round(time.Second))
	if twice := w.pods.twice(); len(twice) > 0 {
		t.Errorf("sandboxes created twice: %v", twice)
	}
	ends := map[fleet.TaskID]int{}
	for _, e := range leader.eventsOf("agents", "task_settled") {
		ends[e.Task]++
	}
	for id, n := range ends {
		if n != 1 {
			t.Errorf("task %s ended %d times", id, n)
		}
	}
	if len(ends) != 30 {
		t.Errorf("%d tasks have an end in the journal", len(ends))
	}
	// Without consumers the leader carries the sandboxes itself, and they end.
	delete(spec, "consumers")
	w.apply("agents", spec)
	w.until(time.Minute, "the consumer that was left has ended", func() error {
		select {
		case err := <-two.exited:
			two.exited <- err
			return err
		default:
			return fmt.Errorf("it runs")
		}
	})
	leader.submit("agents", "late", 2, "true")
	leader.succeed("agents", 32, time.Minute)
	leader.stop()
}

// runningAt counts the tasks that have begun at each consumer, by its journal.
func (p *plane) runningAt(name string, consumers ...*plane) map[*plane]int {
	out := map[*plane]int{}
	for _, e := range p.eventsOf(name, "task_started") {
		for _, c := range consumers {
			if strings.Contains(e.Reason, fmt.Sprintf("-%d-", c.cmd.Process.Pid)) {
				out[c]++
			}
		}
	}
	return out
}

func (p *plane) eventsOf(name, kind string) []fleet.Event {
	var l v1alpha1.EventList
	if _, err := p.api("GET", name, "/v1/events?limit=10000&kind="+kind, nil, &l); err != nil {
		return nil
	}
	return l.Events
}

// reaches runs a command beside a running task, and reads what it uses, through
// the leader.
func (p *plane) reaches(name string) {
	p.w.t.Helper()
	c, err := client.New(client.Options{Server: p.base + "/fleets/" + p.w.ns + "/" + name, Token: p.token})
	if err != nil {
		p.w.t.Fatal(err)
	}
	defer c.Close()
	p.w.until(30*time.Second, "a running task is reached", func() error {
		for _, v := range p.mustTasks(name) {
			if v.State != "running" {
				continue
			}
			ctx, cancel := context.WithTimeout(p.w.t.Context(), 10*time.Second)
			defer cancel()
			var out, wrong bytes.Buffer
			code, err := c.Exec(ctx, v.ID, fleet.ExecRequest{Command: []string{"sh", "-c", "echo reached; exit 3"}, Stdout: &out, Stderr: &wrong})
			if err != nil || code != 3 || !strings.Contains(out.String(), "reached") {
				return fmt.Errorf("exec: %d %q %q %w", code, out.String(), wrong.String(), err)
			}
			// There is no metrics-server here: that is said by who carries the task.
			_, err = p.api("GET", name, "/v1/tasks/"+string(v.ID)+"/usage", nil, nil)
			if err != nil && !strings.Contains(err.Error(), "metrics") {
				return fmt.Errorf("usage: %w", err)
			}
			return nil
		}
		states := map[fleet.TaskState]int{}
		for _, v := range p.mustTasks(name) {
			states[v.State]++
		}
		return fmt.Errorf("none runs: %v", states)
	})
}
