package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/pg"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

// reigns are the terms that a candidate begins and ends.
type reigns struct{ begun, ended chan int64 }

func campaign(t testing.TB, db *DB) (reigns, context.CancelFunc) {
	t.Helper()
	r := reigns{make(chan int64, 10), make(chan int64, 10)}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() {
		over <- db.Campaign(ctx, func(ctx context.Context, term int64) error {
			r.begun <- term
			<-ctx.Done()
			r.ended <- term
			return nil
		})
	}()
	stopped := func() {
		stop()
		select {
		case err := <-over:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("campaign: %v", err)
			}
			over <- err
		case <-time.After(20 * time.Second):
			t.Error("the campaign does not end")
		}
	}
	t.Cleanup(stopped)
	return r, stopped
}

func next(t testing.TB, c <-chan int64, within time.Duration) int64 {
	t.Helper()
	select {
	case term := <-c:
		return term
	case <-time.After(within):
		t.Fatalf("nothing happened within %s", within)
		return 0
	}
}

// testCampaign has two candidates: one leads at a time; the other follows when
// the leader steps down, and when its connection is lost.
func testCampaign(t *testing.T, s *servers.Postgres) {
	a, b := pair(t, s, Options{})
	first, stopFirst := campaign(t, a)
	one := next(t, first.begun, 10*time.Second)
	second, _ := campaign(t, b)
	select {
	case <-second.begun:
		t.Fatal("two lead")
	case <-time.After(2 * candidacy):
	}
	if err := a.PutSetting(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	stopFirst()
	next(t, first.ended, time.Second)
	two := next(t, second.begun, 10*time.Second)
	if two <= one {
		t.Errorf("term %d after %d", two, one)
	}
	if err := a.PutSetting(t.Context(), "k", []byte("v")); !errors.Is(err, ErrDeposed) {
		t.Errorf("who stepped down writes: %v", err)
	}
	// The connection that holds the lock is lost: whoever led hears of it, and
	// one of the candidates leads in a new term.
	query[bool](t, b, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) + objid::bigint = $1",
		lockNumber(b))
	next(t, second.ended, 10*time.Second)
	if three := next(t, second.begun, 10*time.Second); three <= two {
		t.Errorf("term %d after %d", three, two)
	}
	// Somebody leads who did not campaign: the elected one gives way.
	lead(t, a)
	next(t, second.ended, 10*time.Second)
}

// testCampaignEnds: an error of the leader's own ends its campaign, and a store
// that is closed ends it, too.
func testCampaignEnds(t *testing.T, s *servers.Postgres) {
	a, b := pair(t, s, Options{})
	broken := errors.New("cannot lead")
	if err := a.Campaign(t.Context(), func(context.Context, int64) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("campaign of one that cannot lead: %v", err)
	}
	over, begun := make(chan error, 1), make(chan struct{})
	go func() {
		over <- b.Campaign(context.Background(), func(ctx context.Context, _ int64) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-begun
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-over:
		if !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("campaign in a closed store: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the campaign goes on in a closed store")
	}
}

// leaderEnv makes this test binary a process that leads until it is killed.
const leaderEnv = "MUSTER_TEST_LEADER"

// leader is that process: it says so once it leads, and writes all the time.
func leader(spec string) {
	schema, dsn, _ := strings.Cut(spec, " ")
	db, err := Open(context.Background(), dsn, Options{Schema: schema, Name: "victim"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_ = db.Campaign(context.Background(), func(ctx context.Context, term int64) error {
		fmt.Println("leads in term", term)
		for ctx.Err() == nil {
			_ = db.PutSetting(ctx, "who", []byte("victim"))
		}
		return nil
	})
}

// testCampaignKilled kills a leader as the kernel does.
func testCampaignKilled(t *testing.T, s *servers.Postgres) {
	db := open(t, s, Options{Schema: fresh(), Name: "heir"})
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), leaderEnv+"="+db.server.Schema()+" "+s.URL())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "leads in term") {
		t.Fatalf("%q, %v", line, err)
	}
	r, _ := campaign(t, db)
	select {
	case <-r.begun:
		t.Fatal("two lead")
	case <-time.After(2 * candidacy):
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_ = cmd.Wait() // killed
	next(t, r.begun, 10*time.Second)
	t.Logf("led %s after the kill", time.Since(start).Round(time.Millisecond))
	if err := db.PutSetting(t.Context(), "who", []byte("heir")); err != nil {
		t.Fatal(err)
	}
	if v, err := db.Setting(t.Context(), "who"); err != nil || string(v) != "heir" {
		t.Errorf("setting %q, %v", v, err)
	}
}

// lockNumber is that of the lock that a leader holds.
func lockNumber(db *DB) int64 { return pg.LockNumber(db.server.Schema() + " leader") }
