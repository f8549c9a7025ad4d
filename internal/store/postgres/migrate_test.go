package postgres

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

var update = flag.Bool("update", false, "write the fixture of the newest schema, if there is none")

// admin runs statements as somebody else would.
func admin(t testing.TB, s *servers.Postgres, sql string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// testMigrateAtOnce opens a new schema from many processes at once.
func testMigrateAtOnce(t *testing.T, s *servers.Postgres) {
	o := Options{Schema: fresh(), Connections: 2}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			db, err := Open(context.Background(), s.URL(), o)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := db.Submit(context.Background(), []fleet.Task{task("p", "x")}); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	db := open(t, s, o)
	if st := statsOf(t, db); st.Backlog != 6 {
		t.Errorf("stats %+v", st)
	}
}

func testNewerSchema(t *testing.T, s *servers.Postgres) {
	o := Options{Schema: fresh()}
	if err := open(t, s, o).Close(); err != nil {
		t.Fatal(err)
	}
	admin(t, s, "INSERT INTO "+o.Schema+".store_schema (version, name) VALUES (1000, 'of the future')")
	_, err := Open(t.Context(), s.URL(), o)
	if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "newer muster") || !strings.Contains(err.Error(), o.Schema) {
		t.Errorf("a newer schema: %v", err)
	}
}

func testRights(t *testing.T, s *servers.Postgres) {
	admin(t, s, "CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
	dsn := strings.Replace(s.URL(), s.URL()[strings.Index(s.URL(), "//")+2:strings.Index(s.URL(), "@")], "stranger:stranger", 1)
	_, err := Open(t.Context(), dsn, Options{Schema: fresh()})
	if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "AUTHORIZATION") {
		t.Errorf("without the right to make a schema: %v", err)
	}
	schema := fresh()
	admin(t, s, "CREATE SCHEMA "+schema+" AUTHORIZATION stranger")
	db, err := Open(t.Context(), dsn, Options{Schema: schema})
	if err != nil {
		t.Fatalf("with a schema of its own: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	bad := strings.Replace(dsn, "stranger:stranger", "stranger:s3kret", 1)
	if _, err := Open(t.Context(), bad, Options{}); !errors.Is(err, fleet.ErrDenied) || strings.Contains(err.Error(), "s3kret") {
		t.Errorf("wrong password: %v", err)
	}
}

func testSchemas(t *testing.T, s *servers.Postgres) {
	a, b := open(t, s, Options{Schema: SchemaFor("team-a", "fleet")}), open(t, s, Options{Schema: SchemaFor("team", "a-fleet")})
	submit(t, a, task("p", "x"))
	if got := statsOf(t, b); got.Backlog != 0 {
		t.Errorf("fleets share a queue: %+v", got)
	}
	if term := lead(t, a); term != 1 || lead(t, b) != 1 {
		t.Error("fleets share a leader")
	}
}

func fixture(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("schema-%04d.sql.gz", version))
}

// fixtureSchema is what fixtures were made in.
const fixtureSchema = "upgraded"

var fixtureTime = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

// fill writes one of everything. It is how fixtures are made, so a fixture of
// an old schema was filled by the fill of its time.
func fill(t *testing.T, db *DB) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var tasks []fleet.Task
	for i := range 5 {
		tasks = append(tasks, fleet.Task{SubmittedAt: fixtureTime, Receipt: "r", Spec: fleet.TaskSpec{
			Name: fmt.Sprint("task-", i), Pool: "p", Tenant: "a", Labels: map[string]string{"n": fmt.Sprint(i)},
			Webhook: "https://example.com/hook", IdempotencyKey: fmt.Sprint("key-", i), Origin: &fleet.Origin{Queue: "q", Message: fmt.Sprint(i)},
		}})
	}
	submit(t, db, tasks...)
	got := lease(t, db, "p", 2)
	for _, d := range got {
		_, err := db.ClaimSandbox(ctx, d.Lease, fleet.Claim{Sandbox: ready(t, db), Launch: fleet.LaunchWarm, At: fixtureTime})
		must(err)
	}
	_, err := db.Settle(ctx, got[0].Lease.Task, got[0].Lease.Fence, fleet.Settlement{State: fleet.TaskLost, EndedAt: fixtureTime, Result: fleet.Result{Message: "gone"}})
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

// testUpgrade opens a schema of every version there ever was.
func testUpgrade(t *testing.T, s *servers.Postgres) {
	all, err := pg.Migrations(migrations)
	if err != nil {
		t.Fatal(err)
	}
	newest := fixture(len(all))
	if _, err := os.Stat(newest); *update && os.IsNotExist(err) {
		writeFixture(t, s, newest)
	}
	for _, m := range all {
		t.Run(m.Name, func(t *testing.T) {
			admin(t, s, readFixture(t, fixture(m.Version)))
			db := open(t, s, Options{Schema: fixtureSchema})
			t.Cleanup(func() { admin(t, s, "DROP SCHEMA "+fixtureSchema+" CASCADE") })
			if v := query[int](t, db, "SELECT max(version) FROM store_schema"); v != len(all) {
				t.Fatalf("schema %d after the migration", v)
			}
			checkFilled(t, db)
			checkConsumers(t, db, m.Version >= 2)
			checkLedger(t, db, m.Version >= 3)
			checkRevisions(t, db, m.Version >= 4)
			recount(t, db)
			if err := db.Close(); err != nil {
				t.Error(err)
			}
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
	if st := statsOf(t, db); st.Backlog != 3 || st.InFlight != 1 || st.Dead != 1 || st.Arrived != 5 {
		t.Errorf("stats %+v", st)
	}
	if lost, err := db.Tasks(ctx, fleet.TaskFilter{States: []fleet.TaskState{fleet.TaskLost}}); err != nil || len(lost) != 1 || lost[0].Result.Message != "gone" {
		t.Errorf("lost: %+v, %v", lost, err)
	}
	if hooks, err := db.PendingWebhooks(ctx, 10); err != nil || len(hooks) != 1 {
		t.Errorf("webhooks: %v, %v", hooks, err)
	}
	if held, err := db.HeldMessages(ctx, "q"); err != nil || len(held) != 5 {
		t.Errorf("messages: %v, %v", held, err)
	}
	if boxes, err := db.Sandboxes(ctx, time.Time{}); err != nil || len(boxes) != 2 {
		t.Errorf("sandboxes: %v, %v", boxes, err)
	}
	d, err := db.Decisions(ctx, fleet.DecisionFilter{})
	if err != nil || len(d) != 1 || len(d[0].Observation) != 2000 || d[0].Version != 7 {
		t.Fatalf("decisions: %v, %v", d, err)
	}
	if policy, err := db.Policy(ctx, d[0].Policy); err != nil || string(policy) != `{"min":1}` {
		t.Errorf("policy: %q, %v", policy, err)
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
	if out := submit(t, db, fleet.Task{Spec: tasks[0].Spec}); out[0].ID != tasks[0].ID {
		t.Errorf("idempotency key after the migration: %v", out)
	}
}

// checkConsumers: the first schema kept none, and no owners.
func checkConsumers(t *testing.T, db *DB, some bool) {
	t.Helper()
	all, err := db.Consumers(t.Context())
	if err != nil || len(all) > 0 != some || some && (all[0].Name != "c1" || all[0].Running != 1 || all[0].Age <= 0) {
		t.Errorf("consumers: %+v, %v", all, err)
	}
	boxes, err := db.Sandboxes(t.Context(), time.Time{})
	if err != nil || len(boxes) == 0 || boxes[0].Owner != "" {
		t.Fatalf("sandboxes: %+v, %v", boxes, err)
	}
	if got, _, err := db.TakeOver(t.Context(), boxes[0].Spec.ID, "", "c1"); err != nil || got.Owner != "c1" {
		t.Errorf("taken over: %+v, %v", got, err)
	}
}

func checkRevisions(t *testing.T, db *DB, some bool) {
	t.Helper()
	all, err := db.Revisions(t.Context(), fleet.RevisionFilter{})
	if err != nil || len(all) > 0 != some || some && (all[0].Number != 1 || all[0].Author != "ada") {
		t.Errorf("revisions: %+v, %v", all, err)
	}
}

func writeFixture(t *testing.T, s *servers.Postgres, name string) {
	t.Helper()
	db := open(t, s, Options{Schema: fixtureSchema})
	fill(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	dump := servers.Program(t, "pg_dump", "/usr/lib/postgresql/*/bin")
	out, err := exec.CommandContext(t.Context(), dump, "--inserts", "--no-owner", "--schema="+fixtureSchema, s.URL()).Output() //nolint:gosec // found by Program
	if err != nil {
		t.Fatal(err)
	}
	admin(t, s, "DROP SCHEMA "+fixtureSchema+" CASCADE")
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(out); err != nil {
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

// readFixture is SQL, without what only psql understands.
func readFixture(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatalf("every schema has a fixture; make it with: go test -run TestServer/upgrade -update: %v", err)
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
	var keep []string
	for line := range strings.SplitSeq(string(b), "\n") {
		if !strings.HasPrefix(line, `\`) && !strings.HasPrefix(line, "SET transaction_timeout") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
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
