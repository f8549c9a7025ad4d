package postgres

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
	"muster.dev/muster/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(leaderEnv); spec != "" {
		leader(spec)
		return
	}
	flag.Parse()
	// Every history begins with a schema of its own, which takes a while.
	if err := flag.Set("rapid.checks", "12"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var schemas atomic.Int64

// fresh names a schema that no other test uses.
func fresh() string { return fmt.Sprint("store_", schemas.Add(1)) }

func open(t testing.TB, s *servers.Postgres, o Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), s.URL(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// In the bubbles of the suites nothing may wait for the network while time is
// to pass, so that the stores there do without LISTEN.
func bubble(o Options) Options {
	o.Poll, o.Schema = true, fresh()
	return o
}

// TestServer runs what needs a server, and does no harm to it, on one: making a
// database cluster takes seconds.
func TestServer(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{Settings: []string{"max_connections=200"}})
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *servers.Postgres)
	}{
		{"queue", testQueue},
		{"store", testStore},
		{"shared queue", testSharedQueue},
		{"shared submission", testSharedSubmission},
		{"push", testPush},
		{"push of sandboxes", testPushSandboxes},
		{"take over from a process", testTakeOverFrom},
		{"take over of what is claimed", testTakeOverClaimed},
		{"ages by the server's clock", testAges},
		{"events in order", testEventsInOrder},
		{"doubt", testDoubt},
		{"many slots", testManySlots},
		{"old leader", testOldLeader},
		{"lead waits", testLeadWaits},
		{"lead over one that hangs", testLeadOverHung},
		{"campaign", testCampaign},
		{"campaign of a process that is killed", testCampaignKilled},
		{"campaign of a process that stands still", testCampaignFrozen},
		{"campaign ends", testCampaignEnds},
		{"migrate at once", testMigrateAtOnce},
		{"newer schema", testNewerSchema},
		{"upgrade", testUpgrade},
		{"rights", testRights},
		{"schemas", testSchemas},
		{"bounds", testBounds},
		{"full disk", testFullDisk},
		{"large queue", testLargeQueue},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
	}
}

func testQueue(t *testing.T, s *servers.Postgres) {
	queuetest.Run(t, func(t *testing.T, o queuetest.Options) queuetest.Subject {
		db := open(t, s, bubble(Options{Tenants: o.Tenants}))
		return queuetest.Embedded(db, db.Queue())
	})
}

func testStore(t *testing.T, s *servers.Postgres) {
	storetest.Run(t, func(t testing.TB, o storetest.Options) storetest.Subject {
		opt := bubble(Options{Tenants: o.Tenants, MaxBacklog: o.MaxBacklog})
		var subject func(db *DB) storetest.Subject
		subject = func(db *DB) storetest.Subject {
			return storetest.Subject{Store: db, Queue: db.Queue(), Reopen: func(t testing.TB) storetest.Subject {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
				return subject(open(t, s, opt))
			}}
		}
		return subject(open(t, s, opt))
	})
}

// query is one value, as the database's owner would see it.
func query[T any](t testing.TB, db *DB, sql string, args ...any) T {
	t.Helper()
	c, err := db.server.Dedicated(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var v T
	if err := c.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
