package sqlite

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

var update = flag.Bool("update", false, "write the fixture of the newest schema, if there is none")

func fixture(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%04d.db.gz", version))
}

var fixtureTime = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// fill writes one of everything. It is how fixtures are made, so a fixture of
// an old schema was filled by the fill of its time.
func fill(t *testing.T, db *DB) {
	t.Helper()
	ctx, q := t.Context(), db.Queue()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var tasks []fleet.Task
	for i := range 5 {
		tasks = append(tasks, fleet.Task{SubmittedAt: fixtureTime, Spec: fleet.TaskSpec{
			Name: fmt.Sprint("task-", i), Pool: "p", Tenant: "a", Labels: map[string]string{"n": fmt.Sprint(i)},
			Webhook: "https://example.com/hook", IdempotencyKey: fmt.Sprint("key-", i),
		}})
	}
	_, err := db.Submit(ctx, tasks)
	must(err)
	got, err := q.Lease(ctx, fleet.LeaseRequest{Slots: map[fleet.PoolKey]int{"p": 3}, Visibility: time.Minute})
	must(err)
	for _, d := range got[:2] {
		sb := fleet.Sandbox{Spec: fleet.SandboxSpec{ID: fleet.NewSandboxID(fixtureTime), Pool: "p"}, State: fleet.SandboxReady, CreatedAt: fixtureTime}
		must(db.PutSandbox(ctx, sb))
		_, err := db.ClaimSandbox(ctx, d.Lease, fleet.Claim{Sandbox: sb.Spec.ID, Launch: fleet.LaunchWarm, At: fixtureTime})
		must(err)
	}
	_, err = db.Settle(ctx, got[0].Lease.Task, got[0].Lease.Fence, fleet.Settlement{State: fleet.TaskLost, EndedAt: fixtureTime, Result: fleet.Result{Message: "gone"}})
	must(err)
	_, err = db.AppendDecision(ctx, fleet.DecisionRecord{At: fixtureTime, Changed: true, Observation: bytes.Repeat([]byte("o"), 2000), Plan: []byte("{}"), State: []byte("{}"), Version: 7}, []byte(`{"min":1}`))
	must(err)
	_, err = db.AppendEvents(ctx, []fleet.Event{{At: fixtureTime, Kind: "hold", Reason: "why"}})
	must(err)
	must(db.PutSchedule(ctx, fleet.Schedule{Name: "nightly", Cron: "0 3 * * *", Task: []byte("{}"), Next: fixtureTime}))
	must(db.PutSetting(ctx, "spec", []byte("value")))
	must(db.Post(ctx, fleet.Posting{Seq: 1, State: []byte("s"), Books: []fleet.Book{{Span: fleet.BookDay, From: fixtureTime.Truncate(24 * time.Hour), Content: []byte("b")}}}))
	must(db.PutConsumer(ctx, fleet.Consumer{Name: "c1", Address: "10.0.0.1:8443", Running: 1}))
	_, _, err = db.AppendRevision(ctx, fleet.Revision{At: fixtureTime, Author: "ada", Source: fleet.FromFile, Spec: []byte(`{"spec":{}}`)})
	must(err)
}

// TestMigrations opens a database of every schema there ever was.
func TestMigrations(t *testing.T) {
	all, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	newest := fixture(len(all))
	if _, err := os.Stat(newest); *update && os.IsNotExist(err) {
		writeFixture(t, newest)
	}
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "muster.db")
			unpackFixture(t, fixture(m.version), path)
			db := open(t, path, Options{BackupEvery: -1})
			if v, err := version(t.Context(), db.readers); err != nil || v != len(all) {
				t.Fatalf("schema %d after migration, %v", v, err)
			}
			if b := copies(path); (len(b) > 0) != (m.version < len(all)) {
				t.Errorf("copies before the migration: %v", b)
			}
			checkFilled(t, db)
			checkPolicy(t, db, m.version)
			checkConsumers(t, db, m.version >= 4)
			checkLedger(t, db, m.version >= 5)
			checkRevisions(t, db, m.version >= 6)
			recount(t, db)
		})
	}
}

func checkFilled(t *testing.T, db *DB) {
	t.Helper()
	ctx := t.Context()
	tasks, err := db.Tasks(ctx, fleet.TaskFilter{})
	if err != nil || len(tasks) != 5 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	st, err := db.Queue().Stats(ctx)
	if err != nil || st.Backlog != 3 || st.InFlight != 1 || st.Dead != 1 || st.Arrived != 5 {
		t.Errorf("stats %+v, %v", st, err)
	}
	if lost, err := db.Tasks(ctx, fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskLost}}); err != nil || len(lost) != 1 || lost[0].Result.Message != "gone" {
		t.Errorf("lost: %+v, %v", lost, err)
	}
	if hooks, err := db.PendingWebhooks(ctx, 10); err != nil || len(hooks) != 1 {
		t.Errorf("webhooks: %v, %v", hooks, err)
	}
	if boxes, err := db.Sandboxes(ctx, time.Time{}); err != nil || len(boxes) != 2 {
		t.Errorf("sandboxes: %v, %v", boxes, err)
	}
	if d, err := db.Decisions(ctx, fleet.DecisionFilter{}); err != nil || len(d) != 1 || len(d[0].Observation) != 2000 {
		t.Errorf("decisions: %v, %v", d, err)
	}
	if ev, err := db.Events(ctx, fleet.EventFilter{}); err != nil || len(ev) != 1 || ev[0].Reason != "why" {
		t.Errorf("events: %v, %v", ev, err)
	}
	if sc, err := db.Schedules(ctx); err != nil || len(sc) != 1 || !sc[0].Next.Equal(fixtureTime) {
		t.Errorf("schedules: %v, %v", sc, err)
	}
	if v, err := db.Setting(ctx, "spec"); err != nil || string(v) != "value" {
		t.Errorf("setting: %q, %v", v, err)
	}
	again := fleet.Task{Spec: tasks[0].Spec}
	if out, err := db.Submit(ctx, []fleet.Task{again}); err != nil || out[0].ID != tasks[0].ID {
		t.Errorf("idempotency key after the migration: %v, %v", out, err)
	}
}

// checkPolicy: the first schema kept neither version nor policy.
func checkPolicy(t *testing.T, db *DB, from int) {
	t.Helper()
	all, err := db.Decisions(t.Context(), fleet.DecisionFilter{})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d decisions, %v", len(all), err)
	}
	d, want := all[0], []byte(`{"min":1}`)
	if from < 2 {
		if d.Version != 0 || d.Policy != "" {
			t.Errorf("version %d, policy %q", d.Version, d.Policy)
		}
		return
	}
	if got, err := db.Policy(t.Context(), d.Policy); err != nil || !bytes.Equal(got, want) || d.Version != 7 {
		t.Errorf("version %d, policy %s, %v", d.Version, got, err)
	}
}

func checkConsumers(t *testing.T, db *DB, some bool) {
	t.Helper()
	all, err := db.Consumers(t.Context())
	if err != nil || len(all) > 0 != some || some && (all[0].Name != "c1" || all[0].Running != 1 || all[0].Age <= 0) {
		t.Errorf("consumers: %+v, %v", all, err)
	}
}

func checkRevisions(t *testing.T, db *DB, some bool) {
	t.Helper()
	all, err := db.Revisions(t.Context(), fleet.RevisionFilter{})
	if err != nil || len(all) > 0 != some || some && (all[0].Number != 1 || all[0].Author != "ada") {
		t.Errorf("revisions: %+v, %v", all, err)
	}
}

func writeFixture(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "muster.db")
	db, err := Open(t.Context(), path, Options{BackupEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unpackFixture(t *testing.T, name, to string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatalf("every schema has a fixture; make it with: go test -run TestMigrations -update: %v", err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkLedger: earlier schemas kept none.
func checkLedger(t *testing.T, db *DB, kept bool) {
	t.Helper()
	want := int64(0)
	if kept {
		want = 1
	}
	if seq, _, err := db.LedgerState(t.Context()); err != nil || seq != want {
		t.Errorf("the ledger is at %d, %v; want %d", seq, err, want)
	}
}
