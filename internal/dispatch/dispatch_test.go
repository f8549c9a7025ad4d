package dispatch

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/memory"
)

// rig is a dispatcher on fakes, with a stand-in for the control loop that
// keeps a number of sandboxes ready.
type rig struct {
	t     *testing.T
	store *memory.Store
	boxes *fake.Sandboxes
	shelf *shelf
	want  int // ready sandboxes to keep
	alter func(*Config)

	d      *Dispatcher
	stop   context.CancelFunc
	done   chan struct{}
	filled chan struct{}
}

func newRig(t *testing.T, o fake.Options, want int) *rig {
	return &rig{t: t, store: memory.New(memory.Options{}), boxes: fake.New(o), shelf: newShelf(), want: want}
}

type secrets map[string]string

func (s secrets) Secret(_ context.Context, name string) (string, error) {
	if v, ok := s[name]; ok {
		return v, nil
	}
	return "", fleet.ErrNotFound
}

func (r *rig) start() Recovered {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan struct{})
	reg := NewRegistry(r.store)
	c := Config{Tasks: r.store, Records: r.store, Journal: r.store, Queue: r.store.Queue(), Archive: r.shelf,
		Sandboxes: r.boxes, Secrets: secrets{"KEY": "v"}, Registry: reg}
	if r.alter != nil {
		r.alter(&c)
	}
	r.d = New(c)
	rec, err := r.d.Recover(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.d.Run(ctx)
	}()
	r.filled = make(chan struct{})
	go func(boxes *fake.Sandboxes, done chan struct{}) {
		defer close(done)
		r.fill(ctx, reg, boxes)
	}(r.boxes, r.filled)
	return rec
}

func (r *rig) fill(ctx context.Context, reg *Registry, boxes *fake.Sandboxes) {
	for ctx.Err() == nil {
		n := 0
		for _, s := range reg.Snapshot() {
			if s.State == fleet.SandboxReady {
				n++
			}
		}
		for ; n < r.want && ctx.Err() == nil; n++ {
			s := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(time.Now()), Pool: "p", Startup: time.Minute}, State: fleet.SandboxStarting, CreatedAt: time.Now()}
			if reg.Put(ctx, s) != nil {
				return
			}
			if _, err := boxes.Create(ctx, s.Spec); err != nil {
				_ = reg.End(context.WithoutCancel(ctx), boxes, s.Spec.ID, time.Now(), err.Error())
				continue
			}
			s.State, s.ReadyAt = fleet.SandboxReady, time.Now()
			if reg.Put(ctx, s) != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// crash ends the process without any clean-up; store and sandboxes stay.
func (r *rig) crash() {
	r.stop()
	<-r.done
	<-r.filled
	r.boxes = r.boxes.Reopen()
}

func (r *rig) end() {
	r.stop()
	<-r.done
	<-r.filled
	ids, _ := r.boxes.List(context.Background())
	for _, id := range ids {
		if err := r.boxes.Destroy(context.Background(), id); err != nil {
			r.t.Error(err)
		}
	}
	_ = r.boxes.Close()
	_ = r.store.Close()
}

func (r *rig) submit(f func(*fleet.TaskSpec)) fleet.TaskID {
	r.t.Helper()
	s := fleet.TaskSpec{Pool: "p", Command: []string{"x"}, Retries: fleet.RetryPolicy{Max: 3, Backoff: time.Second},
		Timeouts: fleet.Timeouts{Startup: time.Minute, Run: time.Hour}, Resources: fleet.Resources{LogBytes: 1 << 20}}
	if f != nil {
		f(&s)
	}
	got, err := r.store.Submit(context.Background(), []fleet.Task{{Spec: s}})
	if err != nil {
		r.t.Fatal(err)
	}
	return got[0].ID
}

func (r *rig) final(id fleet.TaskID) fleet.Task {
	r.t.Helper()
	for range 100_000 {
		t, err := r.store.Task(context.Background(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		if t.State.Final() {
			return t
		}
		time.Sleep(100 * time.Millisecond) // virtual
	}
	r.t.Fatalf("task %s never ended", id)
	return fleet.Task{}
}

func (r *rig) settledEvents() map[fleet.TaskID]int {
	out := map[fleet.TaskID]int{}
	ev, err := r.store.Events(context.Background(), fleet.EventFilter{Kinds: []string{"task_settled"}, Limit: 10_000})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range ev {
		out[e.Task]++
	}
	return out
}

func TestHowATaskEnds(t *testing.T) {
	exit := func(code int) fake.Script {
		return func(_ context.Context, r *fake.Run) fleet.RunReport {
			r.Running()
			if code == 0 {
				return fleet.RunReport{}
			}
			return fleet.RunReport{Reason: fleet.ReasonExit, ExitCode: code}
		}
	}
	for _, c := range []struct {
		name    string
		o       fake.Options
		spec    func(*fleet.TaskSpec)
		state   fleet.TaskState
		reason  fleet.TaskReason
		attempt int
	}{
		{"succeeds", fake.Options{}, nil, fleet.TaskSucceeded, "", 1},
		{"own exit code is not retried", fake.Options{Script: exit(3)}, nil, fleet.TaskFailed, fleet.ReasonExit, 1},
		{"exit retried when asked", fake.Options{Script: exit(3)}, func(s *fleet.TaskSpec) { s.Retries = fleet.RetryPolicy{Max: 2, OnExit: true} }, fleet.TaskFailed, fleet.ReasonExit, 3},
		{"out of memory", fake.Options{Script: exit(137), Usage: func(fleet.SandboxSpec, time.Duration) fleet.Usage { return fleet.Usage{OOMKills: 1} }}, nil, fleet.TaskFailed, fleet.ReasonOOM, 1},
		{"disk full", fake.Options{Script: exit(1), Usage: func(fleet.SandboxSpec, time.Duration) fleet.Usage { return fleet.Usage{DiskFull: true} }}, nil, fleet.TaskFailed, fleet.ReasonDisk, 1},
		{"limit hit but success", fake.Options{Script: exit(0), Usage: func(fleet.SandboxSpec, time.Duration) fleet.Usage { return fleet.Usage{PidsDenied: 9} }}, nil, fleet.TaskSucceeded, "", 1},
		{"secret missing", fake.Options{}, func(s *fleet.TaskSpec) { s.Secrets = []string{"NOPE"} }, fleet.TaskFailed, fleet.ReasonSecret, 1},
		{"secret there", fake.Options{}, func(s *fleet.TaskSpec) { s.Secrets = []string{"KEY"} }, fleet.TaskSucceeded, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, c.o, 1)
				r.start()
				defer r.end()
				got := r.final(r.submit(c.spec))
				if got.State != c.state || got.Result.Reason != c.reason || got.Attempt != c.attempt {
					t.Errorf("%s %s after %d attempts (%s), want %s %s after %d", got.State, got.Result.Reason, got.Attempt, got.Result.Message, c.state, c.reason, c.attempt)
				}
				if c.reason != "" && got.Result.Message == "" {
					t.Error("no message for a person")
				}
			})
		})
	}
}

func TestLostSandboxIsTriedAgainThenLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
			r.Running()
			<-ctx.Done()
			return fleet.RunReport{Reason: fleet.ReasonExit, ExitCode: 1}
		}}, 1)
		r.start()
		defer r.end()
		id := r.submit(func(s *fleet.TaskSpec) { s.Retries = fleet.RetryPolicy{Max: 2, Backoff: time.Second} })
		for range 3 {
			time.Sleep(time.Minute)
			task, _ := r.store.Task(t.Context(), id)
			if task.State != fleet.TaskRunning {
				t.Fatalf("state %s before the kill", task.State)
			}
			r.boxes.Kill(task.Sandbox, fleet.ReasonNodeLost)
		}
		got := r.final(id)
		if got.State != fleet.TaskLost || got.Result.Reason != fleet.ReasonNodeLost || got.Attempt != 3 {
			t.Errorf("%s %s after %d attempts, want lost, node_lost, 3", got.State, got.Result.Reason, got.Attempt)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
			r.Running()
			<-ctx.Done()
			return fleet.RunReport{Reason: fleet.ReasonExit, ExitCode: 143}
		}}, 1)
		r.start()
		defer r.end()
		id := r.submit(nil)
		later := r.submit(func(s *fleet.TaskSpec) { s.NotBefore = time.Now().Add(time.Hour) })
		time.Sleep(time.Second)
		for _, i := range []fleet.TaskID{id, later} {
			if _, err := r.d.Cancel(t.Context(), i, "ann"); err != nil {
				t.Fatal(err)
			}
			if got := r.final(i); got.State != fleet.TaskCancelled || got.Result.Reason != fleet.ReasonCancelled {
				t.Errorf("%s %s, want cancelled", got.State, got.Result.Reason)
			}
		}
		if _, err := r.d.Exec(t.Context(), id, fleet.ExecRequest{Command: []string{"x"}}); !errors.Is(err, fleet.ErrConflict) {
			t.Errorf("exec into a task that ended: %v, want a conflict", err)
		}
	})
}

func TestClaimThatFailsUsesAnotherSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{}, 2)
		r.start()
		defer r.end()
		r.boxes.Inject(fake.OpClaim, fleet.ErrNotFound, 2)
		if got := r.final(r.submit(nil)); got.State != fleet.TaskSucceeded || got.Attempt != 3 {
			t.Errorf("%s after %d attempts, want success on the third", got.State, got.Attempt)
		}
	})
}

func TestStoreFailureDuringSettleLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{}, 1)
		r.start()
		defer r.end()
		r.store.FailOnce("Settle", fleet.ErrFull)
		id := r.submit(nil)
		if got := r.final(id); got.State != fleet.TaskSucceeded {
			t.Errorf("%s (%s), want succeeded", got.State, got.Result.Message)
		}
		time.Sleep(time.Second)
		if n := r.settledEvents()[id]; n != 1 {
			t.Errorf("%d settled events, want 1", n)
		}
	})
}

// What a task has behind it when it is taken up again is not recorded anew.
func TestResumedTaskKeepsItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{Script: func(ctx context.Context, run *fake.Run) fleet.RunReport {
			run.Running()
			_ = run.Sleep(ctx, time.Minute)
			return fleet.RunReport{}
		}}, 1)
		r.start()
		id := r.submit(nil)
		time.Sleep(10 * time.Second)
		r.crash()
		time.Sleep(20 * time.Second)
		if n := r.start().Resumed; n != 1 {
			t.Fatalf("%d tasks were taken over, want 1", n)
		}
		defer r.end()
		if got := r.final(id); got.Phases.Claim > time.Second {
			t.Errorf("%s, claim took %s; it was over before the crash", got.State, got.Phases.Claim)
		}
		ev, err := r.store.Events(t.Context(), fleet.EventFilter{Task: id, Kinds: []string{"task_claimed", "task_resumed"}})
		if err != nil || len(ev) != 2 {
			t.Errorf("events %v, %v; want one claim and one resumption", ev, err)
		}
	})
}

// TestCrashes kills the process a hundred times under load.
func TestCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 7))
		r := newRig(t, fake.Options{
			Lead: func(fleet.SandboxSpec) time.Duration { return 200 * time.Millisecond },
			Script: func(ctx context.Context, run *fake.Run) fleet.RunReport {
				run.Running()
				run.Print(fleet.StreamStdout, "begin\n")
				_ = run.Sleep(ctx, 700*time.Millisecond)
				run.Print(fleet.StreamStdout, "end\n")
				return fleet.RunReport{}
			}}, 5)
		var ids []fleet.TaskID
		resumed := 0
		for range 100 {
			resumed += r.start().Resumed
			for range rng.IntN(6) {
				ids = append(ids, r.submit(nil))
			}
			time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
			r.crash()
		}
		r.start()
		defer r.end()
		for _, id := range ids {
			got := r.final(id)
			if got.State != fleet.TaskSucceeded {
				t.Errorf("task %s: %s %s", id, got.State, got.Result.Message)
			}
			if log := r.shelf.log(id, got.Attempt); log != "begin\nend\n" {
				t.Errorf("log of %s: %q", id, log)
			}
		}
		if resumed == 0 {
			t.Error("no running task was ever taken over: the crashes hit nothing of interest")
		}
		for id, n := range r.settledEvents() {
			if n > 1 {
				t.Errorf("task %s was settled %d times", id, n)
			}
		}
		time.Sleep(time.Minute)
		if live := r.boxes.Counts().Live; live > r.want {
			t.Errorf("%d sandboxes are left, want at most the %d ready ones", live, r.want)
		}
		t.Logf("%d tasks, %d taken over", len(ids), resumed)
	})
}

func TestBackoff(t *testing.T) {
	for i, want := range []time.Duration{1, 1, 2, 4, 8} {
		if got := Backoff(time.Second, i); got != want*time.Second {
			t.Errorf("Backoff(1s, %d) = %s, want %s", i, got, want*time.Second)
		}
	}
	if got := Backoff(time.Minute, 50); got != 5*time.Minute {
		t.Errorf("Backoff is unbounded: %s", got)
	}
}

func TestFailWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fake.Options{}, 0)
		r.start()
		defer r.end()
		var ids []fleet.TaskID
		for range 250 {
			ids = append(ids, r.submit(nil))
		}
		other := r.submit(func(s *fleet.TaskSpec) { s.Pool = "q" })
		n, err := r.d.FailWaiting(t.Context(), "p", fleet.ReasonImage, "no such image")
		if err != nil || n != 250 {
			t.Fatalf("%d settled, %v", n, err)
		}
		for _, id := range ids {
			if got := r.final(id); got.State != fleet.TaskFailed || got.Result.Reason != fleet.ReasonImage {
				t.Fatalf("%s %s", got.State, got.Result.Reason)
			}
		}
		if got, _ := r.store.Task(t.Context(), other); got.State != fleet.TaskQueued {
			t.Errorf("a task of another pool is %s", got.State)
		}
	})
}
