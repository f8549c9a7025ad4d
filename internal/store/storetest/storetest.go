package storetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/fleet"
)

// Options shape the store under test.
type Options struct {
	Tenants    map[fleet.TenantID]fleet.Share
	MaxBacklog int
}

// Subject is a store under test and the queue of its tasks.
type Subject struct {
	Store fleet.Store
	Queue fleet.Queue
	// Reopen closes the store and opens it anew, as after a restart; nil where
	// nothing outlives the process.
	Reopen func(testing.TB) Subject
}

// Factory makes an empty store and cleans up after the test.
type Factory func(t testing.TB, o Options) Subject

// Run runs the suite. Each test runs in a testing/synctest bubble: the store
// must take its time and timers from the time package.
func Run(t *testing.T, open Factory) {
	tests := []struct {
		name string
		opt  Options
		run  func(*fixture)
	}{
		{"submit", Options{}, testSubmit},
		{"submit all or none", Options{MaxBacklog: 3}, testAllOrNone},
		{"idempotent submission", Options{}, testIdempotent},
		{"life of a task", Options{}, testLife},
		{"claim is a compare-and-swap", Options{}, testClaim},
		{"a claim outlasts its lease", Options{}, testClaimOutlasts},
		{"change", Options{}, testChange},
		{"retry", Options{}, testRetry},
		{"nack of a claimed task", Options{}, testNackClaimed},
		{"cancel", Options{}, testCancel},
		{"cancel leads", Options{}, testCancelLeads},
		{"expire queued", Options{}, testExpire},
		{"dead", Options{}, testDead},
		{"webhooks", Options{}, testWebhooks},
		{"prune", Options{}, testPrune},
		{"messages", Options{}, testMessages},
		{"list", Options{}, testList},
		{"sandboxes", Options{}, testSandboxes},
		{"a claim is not written over", Options{}, testOverlook},
		{"a used sandbox is not used again", Options{}, testUsedOnce},
		{"swap", Options{}, testSwap},
		{"a swap overlooks no claim", Options{}, testSwapOverlooks},
		{"take over", Options{}, testTakeOver},
		{"take over a running task", Options{}, testTakeOverRunning},
		{"one takes over", Options{}, testTakeOverRace},
		{"claims of others' sandboxes", Options{}, testForeign},
		{"wake sandboxes", Options{}, testWakeSandboxes},
		{"consumers", Options{}, testConsumers},
		{"decisions", Options{}, testDecisions},
		{"list decisions", Options{}, testListDecisions},
		{"policies", Options{}, testPolicies},
		{"events", Options{}, testEvents},
		{"wake events", Options{}, testWakeEvents},
		{"schedules", Options{}, testSchedules},
		{"settings", Options{}, testSettings},
		{"ledger", Options{}, testLedger},
		{"revisions", Options{}, testRevisions},
		{"copies", Options{}, testCopies},
		{"ended context", Options{}, testContext},
		{"closed", Options{}, testClosed},
		{"reopen", Options{}, testReopen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, tt.opt)
				tt.run(&fixture{T: t, Subject: s, s: s.Store, q: s.Queue, ctx: t.Context()})
			})
		})
	}
	t.Run("model", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { checkModel(t, open) })
	})
}

const visibility = 30 * time.Second

type fixture struct {
	*testing.T
	Subject
	s   fleet.Store
	q   fleet.Queue
	ctx context.Context
}

// full is a task with every field of its spec set.
func full() fleet.Task {
	now := time.Now()
	return fleet.Task{ID: fleet.NewTaskID(now), SubmittedAt: now, Spec: fleet.TaskSpec{
		Name: "fix it", Labels: map[string]string{"team": "pay", "project": "x"}, Tenant: "pay",
		Template: "go", Pool: "go~1", Repo: &fleet.Repo{URL: "https://example.com/r", Ref: "main", Depth: 1},
		Prompt: "do \x00 <&> ünïcode", Command: []string{"agent", "--flag"}, Setup: []string{"make"},
		Env: map[string]string{"A": "b"}, Secrets: []string{"key"}, Image: "host",
		Resources:   fleet.Resources{MilliCPU: 1000, MemoryBytes: 1 << 30, Pids: 10, DiskBytes: 1 << 30, Files: 64, LogBytes: 1 << 20},
		Network:     fleet.Network{Mode: fleet.NetworkProxy, Allow: []string{"example.com"}, AllowPrivate: []string{"10.0.0.1"}},
		Timeouts:    fleet.Timeouts{Queue: time.Hour, Startup: time.Minute, Run: time.Hour, Idle: time.Minute},
		MaxMicroUSD: 5, Retries: fleet.RetryPolicy{Max: 2, OnExit: true, Backoff: time.Second}, Priority: 3,
		Artifacts: []string{"*.txt"}, Webhook: "https://example.com/hook", IdempotencyKey: "k1",
	}}
}

func plain(pool fleet.PoolKey) fleet.Task {
	return fleet.Task{Spec: fleet.TaskSpec{Tenant: "default", Template: string(pool), Pool: pool, Command: []string{"true"}}}
}

func (f *fixture) submit(tasks ...fleet.Task) []fleet.Task {
	f.Helper()
	out, err := f.s.Submit(f.ctx, tasks)
	if err != nil {
		f.Fatal(err)
	}
	if len(out) != len(tasks) {
		f.Fatalf("submitted %d tasks, got %d back", len(tasks), len(out))
	}
	return out
}

func (f *fixture) task(id fleet.TaskID) fleet.Task {
	f.Helper()
	t, err := f.s.Task(f.ctx, id)
	if err != nil {
		f.Fatal(err)
	}
	return t
}

func (f *fixture) lease(pool fleet.PoolKey) fleet.Delivery {
	f.Helper()
	d, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{pool: 1}, Visibility: visibility})
	if err != nil {
		f.Fatal(err)
	}
	if len(d) != 1 {
		f.Fatalf("leased %d tasks of %s, want 1", len(d), pool)
	}
	return d[0]
}

func (f *fixture) none(pool fleet.PoolKey) {
	f.Helper()
	d, err := f.q.Lease(f.ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{pool: 1}, Visibility: visibility})
	if err != nil || len(d) != 0 {
		f.Fatalf("leased %v, %v; want none", d, err)
	}
}

// ready makes a sandbox that waits.
func (f *fixture) ready(pool fleet.PoolKey) fleet.Sandbox {
	f.Helper()
	now := time.Now().UTC()
	sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(now), Pool: pool, Node: "n1"}, State: fleet.SandboxReady, CreatedAt: now, ReadyAt: now}
	if err := f.s.PutSandbox(f.ctx, sb); err != nil {
		f.Fatal(err)
	}
	return sb
}

// claim brings a task of pool into a sandbox.
func (f *fixture) claim(pool fleet.PoolKey) (fleet.Delivery, fleet.Sandbox) {
	f.Helper()
	d, sb := f.lease(pool), f.ready(pool)
	if _, err := f.s.ClaimSandbox(f.ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: time.Now()}); err != nil {
		f.Fatal(err)
	}
	return d, sb
}

func (f *fixture) settle(d fleet.Delivery, state fleet.TaskState) fleet.Task {
	f.Helper()
	t, err := f.s.Settle(f.ctx, d.Lease.Task, d.Lease.Fence, fleet.Settlement{State: state, EndedAt: time.Now()})
	if err != nil {
		f.Fatal(err)
	}
	return t
}

func (f *fixture) sandbox(id fleet.SandboxID) fleet.Sandbox {
	f.Helper()
	sb, err := f.s.Sandbox(f.ctx, id)
	if err != nil {
		f.Fatal(err)
	}
	return sb
}

func (f *fixture) counts(backlog, delayed, inFlight, dead int) {
	f.Helper()
	st, err := f.q.Stats(f.ctx)
	if err != nil {
		f.Fatal(err)
	}
	got := [4]int{st.Backlog, st.Delayed, st.InFlight, st.Dead}
	if want := [4]int{backlog, delayed, inFlight, dead}; got != want {
		f.Fatalf("backlog, delayed, in flight, dead: got %v, want %v", got, want)
	}
}

func (f *fixture) is(err, want error, what string) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

func (f *fixture) same(what string, want, got any) {
	f.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		f.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func ids(tasks []fleet.Task) []fleet.TaskID {
	out := []fleet.TaskID{}
	for _, t := range tasks {
		out = append(out, t.ID)
	}
	return out
}
