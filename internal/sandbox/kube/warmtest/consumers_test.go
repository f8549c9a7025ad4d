package warmtest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/gateway"
	"muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/sandbox/sandboxtest"
	kubetest "muster.dev/muster/test/kube"
)

// process is one consumer of a fleet: a gateway and an adapter of its own. All
// pods know only the first one's gateway.
type process struct {
	*site
	*kube.Sandboxes
}

func (p *process) address() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// TestConsumers has real runners, whose identities the API server reviews, go
// from one process to another and back.
func TestConsumers(t *testing.T) {
	door := newSite(t, 1, kubetest.KubeletOptions{})
	var mu sync.Mutex
	owner := map[fleet.SandboxID]string{}
	own := func(id fleet.SandboxID, p *process) {
		mu.Lock()
		defer mu.Unlock()
		owner[id] = p.address()
	}
	open := func(s *site) *process {
		p := &process{site: s}
		s.elsewhere = func(_ context.Context, id fleet.SandboxID) (string, bool) {
			mu.Lock()
			defer mu.Unlock()
			return owner[id], owner[id] != "" && owner[id] != p.address()
		}
		o := s.options(t, "coders", false)
		o.Door.URL, o.Door.Port = "https://127.0.0.1:"+strconv.Itoa(door.port), int32(door.port)
		p.Sandboxes = openedWith(t, o)
		return p
	}
	other := &site{t: t, cluster: door.cluster, namespace: door.namespace, exchange: kube.NewExchange()}
	other.serve()
	a, b := open(door), open(other)

	spec := specOf()
	own(spec.ID, b)
	if _, err := b.Create(t.Context(), spec); err != nil { // its runner asks the first one, which is not its owner
		t.Fatal(err)
	}
	task := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"sh", "-c", sandboxtest.ScriptCount}, LogBytes: 1 << 20}
	r := sandboxtest.NewRecorder()
	if err := b.Claim(t.Context(), spec.ID, task, r); err != nil {
		t.Fatal(err)
	}
	r.WaitLog(t, "line 5")
	from := b
	for _, to := range []*process{a, b} {
		own(spec.ID, to)
		adopted := make(chan error, 1)
		go func() { // at the same time, as both hear of it
			held, fence, alive, err := to.Adopt(context.WithoutCancel(t.Context()), spec)
			if err == nil && (held != task.Task || fence != task.Fence || !alive) {
				err = errors.New("not alive, or without its task")
			}
			adopted <- err
		}()
		if err := from.Release(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if err := <-adopted; err != nil {
			t.Fatalf("adopt: %v", err)
		}
		r = r.Successor()
		if err := to.Claim(t.Context(), spec.ID, task, r); err != nil {
			t.Fatal(err)
		}
		pod := door.pod(t, spec.ID)
		if _, err := to.exchange.Peer(t.Context(), gateway.Identity{Namespace: pod.Namespace, Pod: pod.Name, UID: string(pod.UID)}); !errors.Is(err, gateway.ErrSpent) {
			t.Errorf("the identity of the sandbox where it was adopted: %v", err)
		}
		from = to
	}
	if p := r.Report(t); p.ExitCode != 0 || p.Reason != "" {
		t.Errorf("report %+v", p)
	}
	if err := a.Destroy(t.Context(), spec.ID); err != nil { // whoever is told to
		t.Fatal(err)
	}
	if err := b.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if n := len(door.pods(t, "coders")); n != 0 {
		t.Errorf("%d pods are left", n)
	}
}
