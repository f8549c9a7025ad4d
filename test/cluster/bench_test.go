package cluster

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	kubetest "muster.dev/muster/test/kube"
)

// BenchmarkKube measures `muster serve --kubernetes` against the API server of
// test/kube, which shares the machine with it, as do the scheduler, the
// controllers, and the played kubelets with their runners:
//
//	go test ./test/cluster -run '^$' -bench Kube -benchtime 1x
func BenchmarkKube(b *testing.B) {
	b.Run("Push", benchmarkPush)
	b.Run("Claim", benchmarkClaim)
	b.Run("Burst", benchmarkBurst)
	b.Run("Paced", benchmarkPaced)
	b.Run("Sustained", benchmarkSustained)
	b.Run("Steady", benchmarkSteady)
}

// stage is a fleet with a warm pool on nodes with room for all of it.
func stage(b *testing.B, warm, most int) (*world, *plane, *storm) {
	b.Helper()
	b.Logf("%d cores, %s, load %s", runtime.NumCPU(), processor(), firstOf("/proc/loadavg"))
	nodes := most/100 + 1
	w := setUp(b, options{inProcess: true, group: kubetest.GroupOptions{Min: nodes, Max: nodes, MilliCPU: 200_000, Memory: 1 << 40, Pods: 150}})
	s, kubeconfig := newStorm(b, w.c.Config, 1)
	w.apply("agents", w.fleetSpec(fmt.Sprintf(`
capacity: {sandboxes: {min: %d, max: %d}}
nodes: {provider: kubernetes, slots: 120, max: %d, boot: 5s, kubernetes: {nodeSelector: {pool: %s}}}
scaling: {holdWarm: 1h}`, warm, most, nodes, w.ns)))
	p := w.plane("serve", kubeconfig).start()
	p.ready("agents")
	w.settled(p, s, warm)
	return w, p, s
}

// settled waits until a pool is warm, nothing starts, and nothing was written
// for a second. It returns how many sandboxes are ready.
func (w *world) settled(p *plane, s *storm, warm int) int {
	w.t.Helper()
	ready, last, since := 0, int64(-1), time.Now()
	w.until(5*time.Minute, "the pool is warm", func() error {
		var f v1alpha1.FleetView
		if _, err := p.api("GET", "agents", "/v1/fleet", nil, &f); err != nil {
			return err
		}
		if len(f.Pools) == 0 {
			return errors.New("nothing was decided yet")
		}
		ready = f.Pools[0].Ready
		if n := s.writes.Load(); n != last || ready < warm || f.Pools[0].Starting > 0 {
			last, since = n, time.Now()
		}
		if time.Since(since) < time.Second {
			return fmt.Errorf("%d ready, %d starting, %d writes", ready, f.Pools[0].Starting, last)
		}
		return nil
	})
	return ready
}

// send pushes n tasks in one request, and returns when it began to.
func (p *plane) send(prefix string, n int, script string) time.Time {
	p.w.t.Helper()
	tasks := make([]map[string]any, n)
	for i := range tasks {
		tasks[i] = map[string]any{"name": prefix, "command": []string{"sh", "-c", script}}
	}
	at := time.Now()
	if _, err := p.api("POST", "agents", "/v1/tasks", map[string]any{"tasks": tasks}, nil); err != nil {
		p.w.t.Fatal(err)
	}
	return at
}

// accepted are the times at which runners accepted the tasks of a name.
func (p *plane) accepted(prefix string) (at []time.Time) {
	p.w.t.Helper()
	for _, v := range p.mustTasks("agents") {
		if v.Name == prefix && !v.StartedAt.IsZero() {
			at = append(at, v.ClaimedAt.Add(time.Duration(v.Phases.ClaimSeconds*float64(time.Second))))
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// done waits until all n tasks of a name are accepted, and returns when.
func (p *plane) done(prefix string, n int) (at []time.Time) {
	p.w.t.Helper()
	p.w.until(2*time.Minute, "all are accepted", func() error {
		if at = p.accepted(prefix); len(at) < n {
			return fmt.Errorf("%d of %d", len(at), n)
		}
		return nil
	})
	return at
}

// benchmarkPush: a task is pushed to a warm pool; until the API server tells of
// the pod that was created in place of the one it takes.
func benchmarkPush(b *testing.B) {
	w, p, s := stage(b, 5, 100)
	var waits []time.Duration
	for i := range 60 {
		w.settled(p, s, 5)
		created := w.pods.next()
		name := fmt.Sprint("push-", i)
		at := p.send(name, 1, "true")
		select {
		case c := <-created:
			waits = append(waits, c.Sub(at))
		case <-time.After(time.Minute):
			b.Fatal("no sandbox was created within a minute")
		}
		p.done(name, 1)
	}
	report(b, "created", waits)
}

// benchmarkClaim: one task is pushed to a warm pool; until its runner accepts.
func benchmarkClaim(b *testing.B) {
	w, p, s := stage(b, 10, 100)
	var waits []time.Duration
	for i := range 60 {
		if i%10 == 0 {
			w.settled(p, s, 10)
		}
		name := fmt.Sprint("claim-", i)
		at := p.send(name, 1, "true")
		waits = append(waits, p.done(name, 1)[0].Sub(at))
	}
	report(b, "accepted", waits)
}

// benchmarkBurst: as many tasks at once as sandboxes are warm.
func benchmarkBurst(b *testing.B) {
	const n = 300
	_, p, _ := stage(b, n, n+100)
	at := p.send("burst", n, "sleep 15")
	all := p.done("burst", n)
	var waits []time.Duration
	for _, a := range all {
		waits = append(waits, a.Sub(at))
	}
	report(b, "accepted", waits)
	b.ReportMetric(n/waits[len(waits)-1].Seconds(), "claims/s")
}

// benchmarkPaced: 300 tasks a second for 4 s, as 30 every 100 ms, to a warm pool
// that has as many; none of them ends meanwhile, so nothing else is made or
// removed.
func benchmarkPaced(b *testing.B) {
	const each, rounds = 30, 40
	_, p, _ := stage(b, each*rounds, each*rounds)
	sent := make([]time.Time, rounds)
	var wg sync.WaitGroup
	tick := time.NewTicker(100 * time.Millisecond)
	for i := range rounds { // a push that takes long holds up no other
		wg.Go(func() { sent[i] = p.send(fmt.Sprint("paced-", i), each, "sleep 60") })
		<-tick.C
	}
	tick.Stop()
	wg.Wait()
	var waits []time.Duration
	last := sent[0]
	for i, at := range sent {
		all := p.done(fmt.Sprint("paced-", i), each)
		b.Logf("pushed at %v: %v until the first was accepted, %v until the last", at.Sub(sent[0]).Round(time.Millisecond), all[0].Sub(at), all[each-1].Sub(at))
		for _, a := range all {
			waits = append(waits, a.Sub(at))
			if a.After(last) {
				last = a
			}
		}
	}
	report(b, "accepted", waits)
	b.ReportMetric(each*rounds/last.Sub(sent[0]).Seconds(), "claims/s")
}

// benchmarkSustained: for 20 s there are always tasks that wait, each for a
// sandbox of its own: what is claimed a second includes the making and the
// removal of a pod for each, by a cluster on the same processors.
func benchmarkSustained(b *testing.B) {
	_, p, s := stage(b, 200, 300)
	wrote := s.writes.Load()
	begin := p.send("sustained", 1000, "true")
	time.Sleep(20 * time.Second)
	end := time.Now()
	n := 0
	for _, at := range p.accepted("sustained") {
		if at.Before(end) {
			n++
		}
	}
	b.ReportMetric(float64(n)/end.Sub(begin).Seconds(), "claims/s")
	b.ReportMetric(float64(s.writes.Load()-wrote)/end.Sub(begin).Seconds(), "writes/s")
	b.ReportMetric(0, "ns/op")
}

// benchmarkSteady: 20 s of a fleet that nothing happens to.
func benchmarkSteady(b *testing.B) {
	w, p, s := stage(b, 50, 50)
	w.until(2*time.Minute, "ten seconds without a write", func() error {
		n := s.writes.Load()
		time.Sleep(10 * time.Second)
		if s.writes.Load() != n {
			return fmt.Errorf("%d writes", s.writes.Load()-n)
		}
		return nil
	})
	wrote, used := s.writes.Load(), p.ticks()
	time.Sleep(20 * time.Second)
	if n := s.writes.Load() - wrote; n > 0 {
		b.Logf("the last of %d writes: %v", n, s.last())
	}
	b.ReportMetric(float64(s.writes.Load()-wrote), "writes")
	b.ReportMetric(float64(p.ticks()-used)/20, "cpu-%") // a tick is 10 ms
	b.ReportMetric(0, "ns/op")
}

// ticks is the processor time that the control plane has used.
func (p *plane) ticks() int64 {
	p.w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.w.t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var n int64
	for _, field := range f[11:13] {
		v, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			p.w.t.Fatal(err)
		}
		n += v
	}
	return n
}

func report(b *testing.B, what string, waits []time.Duration) {
	slices.Sort(waits)
	ms := func(q int) float64 { return float64(waits[(len(waits)-1)*q/100].Microseconds()) / 1000 }
	b.ReportMetric(ms(50), what+"-p50-ms")
	b.ReportMetric(ms(99), what+"-p99-ms")
	b.ReportMetric(0, "ns/op")
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func firstOf(name string) string {
	b, _ := os.ReadFile(name)
	f, _, _ := strings.Cut(string(b), " ")
	return f
}
