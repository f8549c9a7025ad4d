package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
	"muster.dev/muster/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func TestQueue(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{})
	queuetest.Run(t, func(t *testing.T, o queuetest.Options) queuetest.Subject {
		db := open(t, s, bubble(Options{Tenants: o.Tenants}))
		return queuetest.Embedded(db, db.Queue())
	})
}

func TestStore(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{})
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
