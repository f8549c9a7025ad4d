package sqlite

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/queue/queuetest"
	"muster.dev/muster/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(victimEnv); path != "" {
		victim(path)
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if millionDir != "" {
			_ = os.RemoveAll(millionDir)
		}
		os.Exit(code)
	}))
}

func open(t testing.TB, path string, o Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), path, o)
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

func TestQueue(t *testing.T) {
	queuetest.Run(t, func(t *testing.T, o queuetest.Options) queuetest.Subject {
		db := open(t, filepath.Join(t.TempDir(), "muster.db"), Options{Tenants: o.Tenants, BackupEvery: -1})
		return queuetest.Embedded(db, db.Queue())
	})
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB, o storetest.Options) storetest.Subject {
		path := filepath.Join(t.TempDir(), "muster.db")
		opt := Options{Tenants: o.Tenants, MaxBacklog: o.MaxBacklog, BackupEvery: -1}
		var subject func(db *DB) storetest.Subject
		subject = func(db *DB) storetest.Subject {
			return storetest.Subject{Store: db, Queue: db.Queue(), Reopen: func(t testing.TB) storetest.Subject {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
				return subject(open(t, path, opt))
			}}
		}
		return subject(open(t, path, opt))
	})
}
