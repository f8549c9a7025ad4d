package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/kedacore/keda/v2/pkg/scalers/externalscaler"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/test/queues"
)

// followFleet is one whose queue others work off.
func followFleet(t *testing.T, q *queues.Queue, mode, workers string) string {
	t.Helper()
	if q.Others != nil {
		if err := q.Others(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: e2e}
spec:
  mode: %s
  queue: {%s}
  templates: [{name: default}]
  scaling: {holdWarm: 1s}
  capacity: {sandboxes: {max: 100}}
  nodes: {slots: 8, boot: 60s, max: 20}
  workers: {startup: 1s%s}
  keda: {listen: "127.0.0.1:0"}
`, mode, q.Block, workers)
}

// sent are 20 messages that nobody takes but who drains them.
func sent() []string {
	var out []string
	for i := range 20 {
		out = append(out, message(fmt.Sprint("n", i), "true"))
	}
	return out
}

// scaler is KEDA's own client, connected to the running control plane.
func (m *machine) scaler() pb.ExternalScalerClient {
	m.t.Helper()
	said := regexp.MustCompile(`external scaler" address=(\S+)`).FindStringSubmatch(m.log.String())
	if said == nil {
		m.t.Fatalf("the control plane does not say where the external scaler is:\n%s", m.log)
	}
	c, err := grpc.NewClient(said[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	return pb.NewExternalScalerClient(c)
}

func (m *machine) metric(c pb.ExternalScalerClient, name string) (n float64, active bool) {
	m.t.Helper()
	ref := &pb.ScaledObjectRef{Name: "workers", Namespace: "agents", ScalerMetadata: map[string]string{"metric": name}}
	a, err := c.IsActive(m.t.Context(), ref)
	if err != nil {
		m.t.Fatal(err)
	}
	v, err := c.GetMetrics(m.t.Context(), &pb.GetMetricsRequest{ScaledObjectRef: ref})
	if err != nil {
		m.t.Fatal(err)
	}
	return v.MetricValues[0].MetricValueFloat, a.Result
}

// TestScale: others work the queue off, and KEDA is told how many there should
// be of them and of nodes.
func TestScale(t *testing.T) {
	needSandboxes(t)
	b, err := queues.Named("nats")
	if err != nil {
		t.Fatal(err)
	}
	q := b.Open(t)
	m := newMachine(t, followFleet(t, q, "scale", ""))
	m.start()
	c := m.scaler()
	eventually(t, 20*time.Second, "nothing is wanted of an empty queue", func() bool {
		n, active := m.metric(c, "sandboxes")
		return n == 0 && !active
	})
	if err := q.Send(t.Context(), sent()...); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "20 sandboxes are wanted", func() bool {
		n, active := m.metric(c, "sandboxes")
		return n >= 20 && active
	})
	eventually(t, 20*time.Second, "nodes for them are wanted", func() bool {
		n, active := m.metric(c, "nodes")
		return n >= 3 && active
	})
	if out := m.must("fleet"); !strings.Contains(out, "20 waiting") {
		t.Errorf("muster fleet:\n%s", out)
	}
	m.evaluates()
	if n, err := q.Count(t.Context()); err != nil || n.Waiting+n.Held != 20 {
		t.Errorf("after all was read: %+v, %v", n, err)
	}
	// Before its nodes are up: those that are would be kept for a while.
	if err := q.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A stock for another such burst is kept for a while.
	var n float64
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if n, _ = m.metric(c, "sandboxes"); n < 20 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%g wanted 30 s after the queue was drained, want less than the 20 that waited:\n%s", n, m.must("fleet"))
		}
	}
	if left := m.must("tasks", "-o", "json"); strings.Contains(left, `"id"`) {
		t.Errorf("a fleet that only scales took tasks: %s", left)
	}
}

// evaluates decides once without a server.
func (m *machine) evaluates() {
	m.t.Helper()
	out := m.must("eval", "-f", m.fleet)
	for _, want := range []string{"backlog 20", "nothing is applied", "pool default: 20 sandboxes", "3 nodes wanted"} {
		if !strings.Contains(out, want) {
			m.t.Errorf("muster eval does not say %q:\n%s", want, out)
		}
	}
}

// TestFollowTakesNothing: who only reads a queue leaves every message, and every
// partition, to those who work it off.
func TestFollowTakesNothing(t *testing.T) {
	each(t, func(t *testing.T, b queues.Backend) {
		q := b.Open(t)
		m := newMachine(t, followFleet(t, q, "scale", ""))
		m.start()
		eventually(t, 20*time.Second, "the queue is read", func() bool { return m.view().SignalsError == "" })
		if err := q.Send(t.Context(), sent()...); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "20 messages are counted", func() bool { return m.view().Backlog == 20 })
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			n, err := q.Count(t.Context())
			if v := m.view(); err != nil || n.Held != 0 || v.Backlog != 20 || v.InFlight != 0 {
				t.Fatalf("nobody works the queue off: the server counts %+v (%v), Muster %d and %d in flight", n, err, v.Backlog, v.InFlight)
			}
		}
		if q.Members != nil {
			if n, err := q.Members(t.Context()); err != nil || n != 0 {
				t.Errorf("%d members of the workers' group, %v; want none", n, err)
			}
		}
	})
}

// TestShadow compares with the workers that there are.
func TestShadow(t *testing.T) {
	needSandboxes(t)
	var workers atomic.Int64
	workers.Store(4)
	actual := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"status": map[string]any{"readyReplicas": workers.Load()}})
	}))
	t.Cleanup(actual.Close)
	b, err := queues.Named("nats")
	if err != nil {
		t.Fatal(err)
	}
	q := b.Open(t)
	doc := followFleet(t, q, "shadow", fmt.Sprintf(`, actual: {http: {url: %q, backlog: status.readyReplicas}}`, actual.URL))
	m := newMachine(t, strings.Replace(doc, "boot: 60s", "boot: 2s", 1))
	m.start()
	eventually(t, 20*time.Second, "the queue is read", func() bool { return m.view().SignalsError == "" })
	if err := q.Send(t.Context(), sent()...); err != nil {
		t.Fatal(err)
	}
	var sh fleet.Shadow
	eventually(t, 2*time.Minute, "the comparison has a few seconds of both", func() bool {
		out := m.must("shadow", "-o", "json")
		if err := json.Unmarshal([]byte(out), &sh); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return sh.Sum.Known > 3 && sh.Sum.Sandboxes > 0
	})
	if mean := sh.Sum.Workers / sh.Sum.Known; mean < 3.9 || mean > 4.1 {
		t.Errorf("%.2f workers on average, want 4", mean)
	}
	out := m.must("shadow")
	for _, want := range []string{"worker-hours", "mean wait", "muster", "actual", "20 tasks arrived"} {
		if !strings.Contains(out, want) {
			t.Errorf("muster shadow does not say %q:\n%s", want, out)
		}
	}
	if n, err := q.Count(t.Context()); err != nil || n.Waiting+n.Held != 20 {
		t.Errorf("a shadow took of the queue: %+v, %v", n, err)
	}
}

// TestBadQueue: what cannot be is refused before anything starts, with the
// field, and the exit code of wrong use.
func TestBadQueue(t *testing.T) {
	const head = "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: x}\nspec:\n  templates: [{name: default}]\n"
	nats := `queue: {type: nats, nats: {servers: ["nats://127.0.0.1:1"], stream: S}`
	for _, c := range []struct{ name, spec, want string }{
		{"no block", "queue: {type: redis}", "spec.queue.redis: is missing"},
		{"block of another type", nats + `, kafka: {brokers: ["127.0.0.1:1"], topic: t}}`, "spec.queue.kafka: has no meaning with type nats"},
		{"mode", "mode: sideways", "spec.mode: "},
		{"expression", nats + `, payload: {format: expr, expr: "{command: [json."}}`, "spec.queue.payload.expr: "},
		{"only to be read", `queue: {type: prometheus, prometheus: {url: "http://127.0.0.1:1", query: up}}`, "spec.queue.type: is prometheus, which can only be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "fleet.yaml")
			if err := os.WriteFile(f, []byte(head+"  "+c.spec+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"validate", f}, {"up", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--fleet", f}} {
				cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "muster"), args...)
				out, err := cmd.CombinedOutput()
				if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), c.want) {
					t.Errorf("muster %s: exit %d (%v), want 2 and %q:\n%s", args[0], code, err, c.want, out)
				}
			}
		})
	}
}
