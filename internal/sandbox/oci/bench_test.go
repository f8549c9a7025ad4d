package oci_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

// Benchmarks run beside the runtime's own command line with the same profile:
// the ratio counts, not the milliseconds of a machine with others on it.
//
//	go test -run '^$' -bench . -benchtime 10x ./internal/sandbox/oci

func benchSpec(r fleet.Runtime) fleet.SandboxSpec {
	return fleet.SandboxSpec{
		ID: fleet.NewSandboxID(time.Now()), Runtime: r, Image: fleet.ImageHost, Startup: time.Minute,
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 2 << 30, Pids: 512, DiskBytes: 10 << 30, Files: 1024, LogBytes: 1 << 20},
		Network:   fleet.Network{Mode: fleet.NetworkNone},
	}
}

func benchOpen(b *testing.B) *oci.Sandboxes {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	o := options(b)
	openWay(b, o.Dir)
	s := open(b, o)
	if f := s.Try(b.Context(), fleet.RuntimeRunc); !f.Works { // also fills the caches
		b.Skipf("runc does not work here: %v", f.Err)
	}
	return s
}

// openWay lets the users of a container walk to dir, which only the baseline
// needs.
func openWay(b *testing.B, dir string) {
	b.Helper()
	for range 2 {
		dir = filepath.Dir(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			b.Fatal(err)
		}
	}
}

func destroyAll(b *testing.B, s *oci.Sandboxes) {
	b.Helper()
	ids, err := s.List(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if err := s.Destroy(context.Background(), id); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

// BenchmarkCreate is the cold start of one sandbox, to ready.
func BenchmarkCreate(b *testing.B) {
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		b.Run(string(r), func(b *testing.B) {
			needRuntime(b, r)
			s := benchOpen(b)
			for b.Loop() {
				spec := benchSpec(r)
				if _, err := s.Create(b.Context(), spec); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Destroy(b.Context(), spec.ID); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
	b.Run("baseline=runc-run", func(b *testing.B) {
		s, dir := benchOpen(b), b.TempDir()
		openWay(b, filepath.Join(dir, "x"))
		i := 0
		for b.Loop() {
			i++
			runcRun(b, s, filepath.Join(dir, fmt.Sprint(i)), nil)
		}
	})
}

// runcRun runs echo in a container and returns when its output came; ended is
// told when the container is gone.
func runcRun(b *testing.B, s *oci.Sandboxes, dir string, ended *sync.WaitGroup) {
	spec := benchSpec(fleet.RuntimeRunc)
	if err := s.Baseline(dir, spec, "/bin/echo", "ok"); err != nil {
		b.Error(err)
		return
	}
	cmd := exec.Command("runc", "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, string(spec.ID))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Error(err)
		return
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ok\n" {
		_ = cmd.Wait()
		b.Errorf("runc run: %q, %v: %s", line, err, &said)
		return
	}
	if ended == nil {
		_ = cmd.Wait()
		return
	}
	ended.Go(func() { _ = cmd.Wait() })
}

// BenchmarkFill50 fills an empty pool with fifty at once, and beside it runs
// fifty `runc run` of the same profile at once, to the last one's first
// output. Target: at most 1.3 times.
func BenchmarkFill50(b *testing.B) {
	const n = 50
	s, dir := benchOpen(b), b.TempDir()
	openWay(b, filepath.Join(dir, "x"))
	var ours, theirs []time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := s.Create(b.Context(), benchSpec(fleet.RuntimeRunc)); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		ours = append(ours, time.Since(began))
		destroyAll(b, s)

		var ended sync.WaitGroup
		began = time.Now()
		for k := range n {
			wg.Go(func() { runcRun(b, s, filepath.Join(dir, fmt.Sprintf("%d-%d", i, k)), &ended) })
		}
		wg.Wait()
		theirs = append(theirs, time.Since(began))
		ended.Wait()
	}
	b.ReportMetric(median(ours).Seconds(), "fill-s")
	b.ReportMetric(median(theirs).Seconds(), "runc-run-s")
	b.ReportMetric(median(ours).Seconds()/median(theirs).Seconds(), "ratio")
}

// BenchmarkClaim is from the claim of a warm sandbox to the first byte that
// the task's command wrote, in the sink. It contains the start of echo.
func BenchmarkClaim(b *testing.B) {
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		b.Run(string(r), func(b *testing.B) {
			needRuntime(b, r)
			s := benchOpen(b)
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				spec := benchSpec(r)
				if _, err := s.Create(b.Context(), spec); err != nil {
					b.Fatal(err)
				}
				a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"/bin/echo", "ok"}, LogBytes: 1 << 20}
				sink := &firstByte{Recorder: sandboxtest.NewRecorder(), first: make(chan time.Time, 1)}
				time.Sleep(20 * time.Millisecond) // let the start's aftermath pass
				b.StartTimer()
				began := time.Now()
				if err := s.Claim(b.Context(), spec.ID, a, sink); err != nil {
					b.Fatal(err)
				}
				took = append(took, (<-sink.first).Sub(began))
				b.StopTimer()
				if err := s.Destroy(b.Context(), spec.ID); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(median(took).Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

type firstByte struct {
	*sandboxtest.Recorder
	once  sync.Once
	first chan time.Time
}

func (f *firstByte) Log(offset int64, at time.Time, stream fleet.Stream, data []byte) error {
	if stream != fleet.StreamSystem {
		f.once.Do(func() { f.first <- time.Now() })
	}
	return f.Recorder.Log(offset, at, stream, data)
}

func (f *firstByte) Artifact(a fleet.Artifact, r io.Reader) error { return f.Recorder.Artifact(a, r) }

// BenchmarkIdleMemory is what a warm sandbox holds, by its control group.
func BenchmarkIdleMemory(b *testing.B) {
	for _, r := range []fleet.Runtime{fleet.RuntimeRunc, fleet.RuntimeCrun, fleet.RuntimeGVisor} {
		b.Run(string(r), func(b *testing.B) {
			needRuntime(b, r)
			s := benchOpen(b)
			const n = 5
			var sum int64
			for b.Loop() {
				sum = 0
				for range n {
					spec := benchSpec(r)
					if _, err := s.Create(b.Context(), spec); err != nil {
						b.Fatal(err)
					}
					time.Sleep(200 * time.Millisecond)
					u, err := s.Usage(b.Context(), spec.ID)
					if err != nil {
						b.Fatal(err)
					}
					sum += u.MemoryBytes
				}
				destroyAll(b, s)
			}
			b.ReportMetric(float64(sum)/n/(1<<20), "MiB/sandbox")
		})
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}
