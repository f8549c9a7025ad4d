package consumer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/memory"
)

// world is a store, a machine, and one consumer on them; the test is the leader.
type world struct {
	t     *testing.T
	store *memory.Store
	boxes *fake.Sandboxes
	o     *Consumer
	stop  context.CancelFunc
	done  chan error
}

func start(t *testing.T, o fake.Options, change ...func(*Config)) *world {
	t.Helper()
	a, err := archive.Open(t.TempDir(), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: memory.New(memory.Options{}), boxes: fake.New(o), done: make(chan error, 1)}
	c := Config{Store: w.store, Queue: w.store.Queue(), Archive: a, Sandboxes: w.boxes, Name: "me", Address: "me:1"}
	for _, f := range change {
		f(&c)
	}
	if w.o, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() {
		w.done <- w.o.Run(ctx)
		_ = a.Close()
	}()
	return w
}

func (w *world) end() {
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Error(err)
	}
	_ = w.boxes.Close()
	for _, s := range w.boxes.Specs() {
		_ = w.boxes.Beside().Destroy(context.Background(), s.ID)
	}
}

// order writes a record as a leader does.
func (w *world) order(owner string) fleet.SandboxID {
	w.t.Helper()
	now := time.Now()
	s := fleet.Sandbox{
		Spec:  fleet.SandboxSpec{ID: fleet.NewSandboxID(now), Pool: "p", Runtime: fleet.RuntimeFake, Image: "host", Startup: time.Minute},
		State: fleet.SandboxStarting, Owner: owner, CreatedAt: now,
	}
	if err := w.store.PutSandbox(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	return s.Spec.ID
}

func (w *world) record(id fleet.SandboxID) fleet.Sandbox {
	w.t.Helper()
	s, err := w.store.Sandbox(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func oneSecond(fleet.SandboxSpec) time.Duration { return time.Second }

func TestOrdersAreCarriedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, fake.Options{Lead: oneSecond})
		mine, others := w.order("me"), w.order("else")
		sleep(5 * time.Second)
		if s := w.record(mine); s.State != fleet.SandboxReady || s.ReadyAt.IsZero() || s.Isolation.Runtime != fleet.RuntimeFake {
			t.Errorf("ours is %+v", s)
		}
		if s := w.record(others); s.State != fleet.SandboxStarting {
			t.Errorf("another's is %s", s.State)
		}
		all, err := w.store.Consumers(t.Context())
		if err != nil || len(all) != 1 || all[0].Name != "me" || all[0].Address != "me:1" || all[0].Leaving || all[0].Age > beatEvery {
			t.Errorf("it tells %+v, %v", all, err)
		}

		s := w.record(mine)
		s.State, s.Order = fleet.SandboxDraining, "scaled in"
		if err := w.store.SwapSandbox(t.Context(), s, fleet.SandboxReady, "me"); err != nil {
			t.Fatal(err)
		}
		sleep(5 * time.Second)
		if s := w.record(mine); s.State != fleet.SandboxGone || s.Message != "scaled in" {
			t.Errorf("after the order to end it is %s: %s", s.State, s.Message)
		}
		if n := w.boxes.Counts().Live; n != 0 {
			t.Errorf("%d sandboxes are left", n)
		}
		w.end()
	})
}

func TestOrderToEndWhileItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, fake.Options{Lead: func(fleet.SandboxSpec) time.Duration { return 30 * time.Second }})
		id := w.order("me")
		sleep(3 * time.Second)
		s := w.record(id)
		s.State, s.Order = fleet.SandboxDraining, "not needed any more"
		if err := w.store.SwapSandbox(t.Context(), s, fleet.SandboxStarting, "me"); err != nil {
			t.Fatal(err)
		}
		sleep(5 * time.Second)
		if s := w.record(id); s.State != fleet.SandboxGone || !s.ReadyAt.IsZero() {
			t.Errorf("it is %s", s.State)
		}
		w.end()
	})
}

func TestFailedStartSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &fleet.ReasonError{Reason: fleet.ReasonPrepare, Err: errors.New("npm is not there")}
		w := start(t, fake.Options{CreateErr: func(fleet.SandboxSpec) error { return broken }})
		id := w.order("me")
		sleep(5 * time.Second)
		if s := w.record(id); s.State != fleet.SandboxGone || s.Failure != fleet.ReasonPrepare || !strings.Contains(s.Message, "npm is not there") {
			t.Errorf("%s, %s: %s", s.State, s.Failure, s.Message)
		}
		if n := w.boxes.Counts().Creates; n != 1 {
			t.Errorf("it was tried %d times", n)
		}
		w.end()
	})
}

func TestTakenAwayIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, fake.Options{Lead: oneSecond})
		id := w.order("me")
		sleep(5 * time.Second)
		if _, _, err := w.store.TakeOver(t.Context(), id, "me", "else"); err != nil {
			t.Fatal(err)
		}
		sleep(3 * time.Second)
		if n := w.o.Owned(); n != 0 {
			t.Errorf("it has %d", n)
		}
		next := w.boxes.Beside()
		if _, _, alive, err := next.Adopt(t.Context(), w.record(id).Spec); err != nil || !alive {
			t.Errorf("the next owner cannot have it: %v %v", alive, err)
		}
		_ = next.Close()
		w.end()
	})
}

func TestHaltedLeasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, fake.Options{Lead: oneSecond})
		if err := w.store.PutSetting(t.Context(), fleet.SettingConsumersHalt, []byte("1")); err != nil {
			t.Fatal(err)
		}
		w.order("me")
		sleep(5 * time.Second)
		tasks, err := w.store.Submit(t.Context(), []fleet.Task{{Spec: fleet.TaskSpec{Tenant: "default", Pool: "p", Command: []string{"true"}}}})
		if err != nil {
			t.Fatal(err)
		}
		state := func() fleet.TaskState {
			x, err := w.store.Task(t.Context(), tasks[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			return x.State
		}
		sleep(10 * time.Second)
		if s := state(); s != fleet.TaskQueued {
			t.Errorf("while halted the task is %s", s)
		}
		if err := w.store.PutSetting(t.Context(), fleet.SettingConsumersHalt, []byte("0")); err != nil {
			t.Fatal(err)
		}
		sleep(10 * time.Second)
		if s := state(); s != fleet.TaskSucceeded {
			t.Errorf("then it is %s", s)
		}
		w.end()
	})
}

// Nobody takes over: the hand-over ends after its time, and says so to the
// leader by being gone.
func TestHandoverIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, fake.Options{Lead: oneSecond}, func(c *Config) { c.Handover = 10 * time.Second })
		w.order("me")
		sleep(5 * time.Second)
		began := time.Now()
		w.stop()
		sleep(5 * time.Second)
		if all, err := w.store.Consumers(t.Context()); err != nil || len(all) != 1 || !all[0].Leaving {
			t.Errorf("meanwhile it tells %+v, %v", all, err)
		}
		err := <-w.done
		w.done <- nil
		if took := time.Since(began); err != nil || took < 9*time.Second || took > 12*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
		if all, err := w.store.Consumers(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("it is still there: %+v, %v", all, err)
		}
		w.end()
	})
}

func TestWhatAConsumerNeeds(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "a name are needed") {
		t.Error(err)
	}
	s := memory.New(memory.Options{})
	a, err := archive.Open(t.TempDir(), archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	whole := struct{ fleet.Sandboxes }{fake.New(fake.Options{})}
	if _, err := New(Config{Store: s, Queue: s.Queue(), Archive: a, Sandboxes: whole, Name: "me"}); err == nil || !strings.Contains(err.Error(), "let go of one by one") {
		t.Error(err)
	}
}

func TestClaimsAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &Consumer{c: Config{Clock: time.Now}}
		if n, p := o.counts.read(); n != 0 || p != 0 {
			t.Errorf("nothing: %d, %s", n, p)
		}
		for range 1000 {
			observer{o}.Settled(fleet.Task{Phases: fleet.Phases{Claim: time.Second}})
		}
		time.Sleep(10 * time.Minute) // those are old by then
		for i := range 100 {
			observer{o}.Settled(fleet.Task{Phases: fleet.Phases{Claim: time.Duration(i+1) * time.Millisecond}})
		}
		if _, p := o.counts.read(); p != 99*time.Millisecond {
			t.Errorf("the 99th percentile is %s", p)
		}
	})
}
