package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/test/queues"
)

// queueFleet is a small fleet that works a queue off; more goes into its
// spec.queue, as "payload: {…}".
func queueFleet(q *queues.Queue, sandboxes, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: e2e}
spec:
  queue: {%s%s}
  templates:
    - name: default
      runtime: runc
      image: host
      resources: {cpus: 1, memory: 256Mi, pids: 64, disk: 64Mi}
      network: {mode: none}
  capacity:
    sandboxes: %s
  nodes: {provider: host, slots: 8, overcommitMemory: 8}
`, q.Block, more, sandboxes)
}

// worker is a machine that works a queue off.
type worker struct {
	*machine
	q *queues.Queue
}

func newWorker(t *testing.T, b queues.Backend, sandboxes, more string) *worker {
	t.Helper()
	q := b.Open(t)
	w := &worker{newMachine(t, queueFleet(q, sandboxes, more)), q}
	w.start()
	return w
}

// configure restarts the control plane with another fleet.
func (w *worker) configure(doc string) {
	w.t.Helper()
	w.stop()
	if err := os.WriteFile(w.fleet, []byte(doc), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

func (w *worker) send(bodies ...string) {
	w.t.Helper()
	if err := w.q.Send(w.t.Context(), bodies...); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

// message is a task as a message.
func message(name, script string) string {
	return fmt.Sprintf(`{"name": %q, "command": ["sh", "-c", %q]}`, name, script)
}

// eventually waits until ok, and says what did not happen within the span.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func (m *machine) tasks() []v1alpha1.TaskView {
	m.t.Helper()
	var list v1alpha1.TaskList
	if _, err := m.api("GET", "/v1/tasks?limit=1000", nil, &list); err != nil {
		m.t.Fatal(err)
	}
	return list.Tasks
}

// named waits for a task with the name, in a state beyond from.
func (m *machine) named(name string, ok func(fleet.TaskState) bool) (v v1alpha1.TaskView) {
	m.t.Helper()
	eventually(m.t, 2*time.Minute, "task "+name+" is there and "+"as far as wanted", func() bool {
		for _, v = range m.tasks() {
			if v.Name == name && ok(v.State) {
				return true
			}
		}
		return false
	})
	return v
}

func running(s fleet.TaskState) bool { return s == fleet.TaskRunning }

// succeeded waits for a task's end and checks it and its log.
func (m *machine) succeeded(name, log string) v1alpha1.TaskView {
	m.t.Helper()
	v := m.named(name, fleet.TaskState.Final)
	if v.State != fleet.TaskSucceeded {
		m.t.Errorf("task %s: %s %s %q", name, v.State, v.Reason, v.Message)
	}
	if got := m.must("logs", string(v.ID)); got != log {
		m.t.Errorf("log of task %s: %q, want %q", name, got, log)
	}
	return v
}

// events are those of one kind, or of all kinds that begin with it.
func (m *machine) events(kind string) (out []fleet.Event) {
	m.t.Helper()
	for after := int64(0); ; {
		var page v1alpha1.EventList
		if _, err := m.api("GET", fmt.Sprintf("/v1/events?after=%d&limit=1000", after), nil, &page); err != nil {
			m.t.Fatal(err)
		}
		if len(page.Events) == 0 {
			return out
		}
		for _, e := range page.Events {
			if after = e.Seq; strings.HasPrefix(e.Kind, kind) {
				out = append(out, e)
			}
		}
	}
}

func (w *worker) empty() {
	w.t.Helper()
	if err := w.q.WaitEmpty(w.t.Context(), 2*time.Minute); err != nil {
		w.t.Error(err)
	}
}

// each runs a test on every backend, or on those named.
func each(t *testing.T, test func(*testing.T, queues.Backend), names ...string) {
	needSandboxes(t)
	for _, b := range queues.All() {
		wanted := len(names) == 0
		for _, n := range names {
			wanted = wanted || n == b.Name
		}
		if wanted {
			t.Run(b.Name, func(t *testing.T) {
				t.Parallel() // most of it is waiting
				test(t, b)
			})
		}
	}
}

// TestQueue works each kind of queue off: tasks, what is no task, and payloads
// of other forms.
func TestQueue(t *testing.T) {
	each(t, func(t *testing.T, b queues.Backend) {
		w := newWorker(t, b, "{min: 2, max: 4}", "")
		w.runsTasks()
		w.setsAside()
		w.configure(queueFleet(w.q, "{min: 2, max: 4}", `payload: {format: bytes, to: stdin, task: {name: bytes, command: ["cat"]}}`))
		w.send("any bytes: {\n")
		w.succeeded("bytes", "any bytes: {\n")
		w.configure(queueFleet(w.q, "{min: 2, max: 4}",
			`payload: {format: expr, expr: '{"name": "expr", "command": ["echo", json.who, text[:6]]}'}`))
		w.send(`{"who": "me"}`, `{"whom": "nobody"`)
		w.succeeded("expr", "me {\"who\"\n")
		w.empty()
		eventually(t, 20*time.Second, "the second dead letter", func() bool { return len(w.dead()) == 2 })
		w.stop()
		w.destroyAll()
		if left := w.traces(); len(left) != 0 {
			t.Errorf("left on the host after the fleet was stopped:\n%s", strings.Join(left, "\n"))
		}
	})
}

func (w *worker) runsTasks() {
	w.t.Helper()
	var bodies []string
	for i := range 6 {
		bodies = append(bodies, message(fmt.Sprint("task", i), fmt.Sprintf("echo $((%d * %d))", i, i)))
	}
	w.send(bodies...)
	for i := range 6 {
		v := w.succeeded(fmt.Sprint("task", i), fmt.Sprintln(i*i))
		if v.Origin == nil || v.Origin.Message == "" {
			w.t.Fatalf("task %d has no origin", i)
		}
		kind, _, _ := strings.Cut(w.q.Block, ",")
		want := "queue " + strings.TrimPrefix(kind, "type: ") + ", message " + v.Origin.Message
		if out := w.must("task", string(v.ID)); !strings.Contains(out, want) {
			w.t.Errorf("muster task does not show %q:\n%s", want, out)
		}
	}
	w.empty()
	if n := len(w.tasks()); n != 6 {
		w.t.Errorf("%d tasks of 6 messages", n)
	}
}

func (w *worker) dead() []queues.Dead {
	w.t.Helper()
	d, err := w.q.Dead(w.t.Context())
	if err != nil {
		w.t.Fatalf("dead letters: %v", err)
	}
	return d
}

func (w *worker) setsAside() {
	w.t.Helper()
	w.send("not a task", message("behind", "echo behind"))
	w.succeeded("behind", "behind\n")
	eventually(w.t, 20*time.Second, "a dead letter", func() bool { return len(w.dead()) == 1 })
	if d := w.dead()[0]; d.Body != "not a task" || !strings.Contains(d.Reason, "is not a task") {
		w.t.Errorf("set aside: %q because %q", d.Body, d.Reason)
	}
	if e := w.events("message_dead_lettered"); len(e) != 1 || !strings.Contains(e[0].Reason, "is not a task") {
		w.t.Errorf("events of what was set aside: %+v", e)
	}
	w.empty()
}
