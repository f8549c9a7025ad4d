package fake_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// recorder is the smallest sink.
type recorder struct {
	mu   sync.Mutex
	log  []byte
	done chan fleet.RunReport
	lost chan error
}

func newRecorder() *recorder {
	return &recorder{done: make(chan fleet.RunReport, 8), lost: make(chan error, 8)}
}

func (r *recorder) LogOffset() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.log))
}

func (r *recorder) Log(_ int64, _ time.Time, _ fleet.Stream, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, data...)
	return nil
}
func (r *recorder) Phase(fleet.TaskState, time.Time) error   { return nil }
func (r *recorder) Patch(int64, io.Reader) error             { return nil }
func (r *recorder) Artifact(fleet.Artifact, io.Reader) error { return nil }
func (r *recorder) Done(p fleet.RunReport) error             { r.done <- p; return nil }
func (r *recorder) Lost(err error)                           { r.lost <- err }

func TestLeadTimesInjectionAndExitsOnAVirtualClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fake.New(fake.Options{Lead: func(fleet.SandboxSpec) time.Duration { return 3 * time.Second }})
		defer s.Close()
		boom := errors.New("boom")
		s.Inject(fake.OpCreate, boom, 2)
		spec := fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now()), Startup: time.Minute}
		for range 2 {
			if _, err := s.Create(ctx, spec); !errors.Is(err, boom) {
				t.Fatalf("injected error not returned: %v", err)
			}
		}
		began := time.Now()
		if _, err := s.Create(ctx, spec); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("ready after %v, want the lead time of 3s", took)
		}
		sink := newRecorder()
		if err := s.Claim(ctx, spec.ID, fleet.Assignment{Task: "t1", Fence: 1}, sink); err != nil {
			t.Fatal(err)
		}
		if p := <-sink.done; p.Task != "t1" || p.Reason != "" {
			t.Errorf("report %+v", p)
		}
		s.Kill(spec.ID, fleet.ReasonOOM)
		if e := <-s.Exited(); e.ID != spec.ID || e.Reason != fleet.ReasonOOM {
			t.Errorf("exit %+v", e)
		}
		if err := s.Destroy(ctx, spec.ID); err != nil {
			t.Fatal(err)
		}
		if c := s.Counts(); c.Creates != 1 || c.Created != 1 || c.Claims != 1 || c.Live != 0 {
			t.Errorf("counts %+v", c)
		}
	})
}

func TestRunTimeoutEndsAScriptThatSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fake.New(fake.Options{Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
			r.Running()
			_ = r.Sleep(ctx, time.Hour)
			return fleet.RunReport{ExitCode: -1, Signal: "SIGTERM"}
		}})
		defer s.Close()
		spec := fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now())}
		if _, err := s.Create(ctx, spec); err != nil {
			t.Fatal(err)
		}
		sink := newRecorder()
		a := fleet.Assignment{Task: "t1", Fence: 1, Timeouts: fleet.Timeouts{Run: time.Minute}}
		if err := s.Claim(ctx, spec.ID, a, sink); err != nil {
			t.Fatal(err)
		}
		if p := <-sink.done; p.Reason != fleet.ReasonTimeoutRun || p.Run != time.Minute {
			t.Errorf("report %+v", p)
		}
		if err := s.Destroy(ctx, spec.ID); err != nil {
			t.Fatal(err)
		}
	})
}
