package postgres

import (
	"flag"
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/archive/archivetest"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Every history begins with a schema of its own, which takes a while.
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var schemas atomic.Int64

func open(t testing.TB, s *servers.Postgres, o Options) *Archive {
	t.Helper()
	if o.Schema == "" {
		o.Schema = fmt.Sprint("archive_", schemas.Add(1))
	}
	a, err := Open(t.Context(), s.URL(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestConformance(t *testing.T) {
	s := servers.StartPostgres(t, servers.PostgresSetup{Settings: []string{"max_connections=300"}})
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprint("poll ", poll), func(t *testing.T) {
			archivetest.Run(t, func(t testing.TB) archivetest.Subject {
				a := open(t, s, Options{Poll: poll})
				o := Options{Schema: a.server.Schema(), Poll: poll}
				twin := open(t, s, o)
				var subject func(*Archive) archivetest.Subject
				subject = func(a *Archive) archivetest.Subject {
					return archivetest.Subject{Archive: a, Twin: twin, Reopen: func(t testing.TB) archivetest.Subject {
						if err := a.Close(); err != nil {
							t.Error(err)
						}
						return subject(open(t, s, o))
					}}
				}
				return subject(a)
			})
		})
	}
}
