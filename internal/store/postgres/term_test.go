package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func lead(t testing.TB, db *DB) int64 {
	t.Helper()
	term, err := db.Lead(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return term
}

// testOldLeader: whoever led before writes nothing of what is the leader's.
func testOldLeader(t *testing.T, s *servers.Postgres) {
	old, heir := pair(t, s, Options{})
	ctx := t.Context()
	submit(t, old, task("p", "x"), task("p", "x"), task("p", "x"))
	first := lead(t, old)
	box := ready(t, old)
	held := lease(t, old, "p", 1)[0]
	if _, err := old.ClaimSandbox(ctx, held.Lease, fleet.Claim{Sandbox: box, Launch: fleet.LaunchWarm, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	unclaimed := lease(t, old, "p", 1)[0]
	spare := ready(t, old)
	if second := lead(t, heir); second <= first {
		t.Fatalf("term %d after %d", second, first)
	}
	if st := statsOf(t, heir); st.Backlog != 2 || st.InFlight != 1 {
		t.Errorf("the lease of the old leader did not come back: %+v", st)
	}
	l := held.Lease
	for name, call := range map[string]func() error{
		"append decision": func() error { _, err := old.AppendDecision(ctx, fleet.DecisionRecord{Changed: true}, nil); return err },
		"append events":   func() error { _, err := old.AppendEvents(ctx, []fleet.Event{{Kind: "x"}}); return err },
		"put sandbox": func() error {
			return old.PutSandbox(ctx, fleet.Sandbox{Spec: fleet.SandboxSpec{ID: box}, State: fleet.SandboxGone})
		},
		"swap sandbox": func() error {
			return old.SwapSandbox(ctx, fleet.Sandbox{Spec: fleet.SandboxSpec{ID: spare}, State: fleet.SandboxDraining}, fleet.SandboxReady, "")
		},
		"take over sandbox": func() error { _, _, err := old.TakeOver(ctx, box, "", "a"); return err },
		"delete consumer":   func() error { return old.DeleteConsumer(ctx, "a") },
		"claim sandbox": func() error {
			_, err := old.ClaimSandbox(ctx, unclaimed.Lease, fleet.Claim{Sandbox: spare, Launch: fleet.LaunchWarm, At: time.Now()})
			return err
		},
		"put setting": func() error { return old.PutSetting(ctx, "planner", []byte("old")) },
		"change":      func() error { return old.Change(ctx, l.Task, l.Fence, fleet.Change{State: fleet.TaskRunning}) },
		"settle": func() error {
			_, err := old.Settle(ctx, l.Task, l.Fence, fleet.Settlement{State: fleet.TaskLost})
			return err
		},
		"retry":       func() error { _, err := old.Retry(ctx, l.Task, l.Fence, time.Now(), "lost"); return err },
		"nack":        func() error { return old.Queue().Nack(ctx, l, 0, "") },
		"dead-letter": func() error { return old.Queue().DeadLetter(ctx, l, "") },
		"extend":      func() error { _, err := old.Queue().Extend(ctx, l, time.Minute); return err },
		"lease": func() error {
			_, err := old.Queue().Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 1}, Visibility: time.Minute})
			return err
		},
	} {
		if err := call(); !errors.Is(err, ErrDeposed) || !errors.Is(err, fleet.ErrFenced) {
			t.Errorf("%s of the old leader: %v", name, err)
		}
	}
	// What anybody may do goes on, and does so beside what is refused.
	done := make(chan error, 20)
	for range 10 {
		go func() { _, err := old.Submit(ctx, []fleet.Task{task("p", "x")}); done <- err }()
		go func() {
			if err := old.PutSetting(ctx, "planner", nil); !errors.Is(err, ErrDeposed) {
				done <- errors.New("a setting of the old leader was taken")
				return
			}
			done <- nil
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := old.Cancel(ctx, unclaimed.Task.ID, "ann", time.Now()); err != nil {
		t.Error(err)
	}
	// The heir goes on with what the old leader had claimed.
	if _, err := heir.Settle(ctx, l.Task, l.Fence, fleet.Settlement{State: fleet.TaskSucceeded, EndedAt: time.Now()}); err != nil {
		t.Error(err)
	}
	if v, err := heir.Setting(ctx, "planner"); v != nil || err != nil {
		t.Errorf("setting %q, %v", v, err)
	}
	if term, who, err := heir.Term(ctx); err != nil || term != first+1 || who != "muster" {
		t.Errorf("term %d of %s, %v", term, who, err)
	}
	recount(t, heir)
}

// testLeadWaits: what the old leader had begun to write is over, one way or
// the other, when the next begins.
func testLeadWaits(t *testing.T, s *servers.Postgres) {
	old, heir := pair(t, s, Options{})
	term := lead(t, old)
	c, err := old.server.Dedicated(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	tx, err := c.BeginTx(t.Context(), pgx.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT in_term($1, $2)", term, old.turnstile); err != nil {
		t.Fatal(err)
	}
	led := make(chan error, 1)
	go func() { _, err := heir.Lead(t.Context()); led <- err }()
	select {
	case err := <-led:
		t.Fatalf("the next leader did not wait: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-led; err != nil {
		t.Fatal(err)
	}
}

// testLeadOverHung: a leader that hangs in a transaction does not keep the next
// from leading: the server ends its session.
func testLeadOverHung(t *testing.T, s *servers.Postgres) {
	o := Options{Schema: fresh(), Patience: 2 * time.Second}
	old, heir := open(t, s, o), open(t, s, o)
	term := lead(t, old)
	c, err := old.server.Dedicated(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "SELECT in_term($1, $2)", term, old.turnstile); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for {
		_, err := heir.Lead(t.Context())
		if err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
	if _, err := c.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("the transaction of the old leader was committed")
	}
}
