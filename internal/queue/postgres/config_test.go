package postgres

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
	"muster.dev/muster/internal/queue/queuetest/servers"
)

func readOnly(stats string, tells ...string) Config {
	return Config{SQL: &SQL{Stats: stats, Tells: tells}}
}

func TestConfig(t *testing.T) {
	secure := connect.TLS{Enabled: true}
	for _, tt := range []struct {
		c     Config
		field string // empty: good
	}{
		{Config{}, ""},
		{Config{URL: "postgres://u@a:5432,b:5433/d?target_session_attrs=read-write", TLS: secure}, ""},
		{Config{URL: "postgresql:///d?host=/run/postgresql"}, ""},
		{Config{Host: "::1", Port: 5433, User: "o'neil @/:?", Database: "täsks"}, ""},
		{Config{Host: "/run/postgresql"}, ""},
		{readOnly("SELECT 1 AS backlog"), ""},
		{Config{URL: "postgres://u:hunter2@h/d"}, "url"},
		{Config{URL: "postgres://u:hunter2/x@h/d"}, "url"},
		{Config{URL: "postgres://h/d?password=hunter2"}, "url"},
		{Config{URL: "hunter2"}, "url"},
		{Config{URL: "postgres://h/d?sslmode=require", TLS: secure}, "url"},
		{Config{URL: "postgres://h/d", User: "u"}, "url"},
		{Config{Port: 65536}, "port"},
		{Config{Connections: 101}, "connections"},
		{Config{Consumer: strings.Repeat("c", 201)}, "consumer"},
		{Config{Table: `q"; DROP TABLE x`}, "table"},
		{Config{Table: strings.Repeat("q", 49)}, "table"},
		{Config{Table: "q", SQL: &SQL{Stats: "s"}}, "table"},
		{readOnly(""), "sql.stats"},
		{readOnly("SELECT @x"), "sql.stats"},
		{readOnly("SELECT 1", "backlog"), "sql.tells"},
		{readOnly("SELECT 1", "dead", "dead"), "sql.tells"},
		{Config{SQL: &SQL{Stats: "s", Lease: "l", Extend: "e", Nack: "n", DeadLetter: "d"}}, "sql.ack"},
		{Config{SQL: &SQL{Stats: "s", Lease: "l", Extend: "e", Ack: "@reason", Nack: "n", DeadLetter: "d"}}, "sql.ack"},
		{Config{SQL: &SQL{Stats: "s", Channel: strings.Repeat("c", 64)}}, "sql.channel"},
	} {
		q, err := prepared(tt.c)
		if err == nil {
			_, err = q.cfg.pool()
		}
		var f *fleet.FieldError
		switch {
		case tt.field == "" && err != nil:
			t.Errorf("%+v refused: %v", tt.c, err)
		case tt.field != "" && (!errors.As(err, &f) || f.Field != tt.field):
			t.Errorf("%+v: %v, want an error of %s", tt.c, err, tt.field)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("shows a password: %v", err)
		}
	}
}

// TestAddress: names with anything in them arrive as they are.
func TestAddress(t *testing.T) {
	c := Config{Host: "::1", Port: 5433, User: "o'neil @/:?", Database: "täs/ks?"}
	p, err := c.pool()
	if err != nil {
		t.Fatal(err)
	}
	if cc := p.ConnConfig; cc.Host != "::1" || cc.Port != 5433 || cc.User != c.User || cc.Database != c.Database || cc.TLSConfig != nil {
		t.Errorf("%s:%d %q %q", cc.Host, cc.Port, cc.User, cc.Database)
	}
	c = Config{URL: "postgres://u@a:5432,b:5433/d", TLS: connect.TLS{Enabled: true}}
	if p, err = c.pool(); err != nil {
		t.Fatal(err)
	}
	if err := p.BeforeConnect(t.Context(), p.ConnConfig); err != nil {
		t.Fatal(err)
	}
	if cc := p.ConnConfig; cc.TLSConfig.ServerName != "a" || len(cc.Fallbacks) != 1 || cc.Fallbacks[0].TLSConfig.ServerName != "b" {
		t.Errorf("TLS of %s is %+v, of others %+v", cc.Host, cc.TLSConfig, cc.Fallbacks)
	}
}

func TestPoll(t *testing.T) {
	q, err := prepared(Config{Poll: true})
	if err != nil || q.Wake() != nil || q.Traits().Push {
		t.Errorf("a queue that is polled pushes (%v)", err)
	}
}

// TestDown: New neither fails nor waits without a server.
func TestDown(t *testing.T) {
	start := time.Now()
	q, err := New(t.Context(), Config{Port: servers.Port(t), Create: true})
	if err != nil || time.Since(start) > 3*time.Second {
		t.Fatalf("after %s: %v", time.Since(start), err)
	}
	if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("no server: %v, want ErrUnavailable", err)
	}
	for range 2 {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("closed: %v, want ErrUnavailable", err)
	}
}

func badSQL(t *testing.T, s *servers.Postgres) {
	exec(t, s, `CREATE TABLE jobs (id int, body bytea)`)
	good := SQL{Stats: "SELECT 0 AS backlog", Lease: "SELECT id, 1 AS receipt, body FROM jobs", Extend: "SELECT 1", Ack: "SELECT 1", Nack: "SELECT 1", DeadLetter: "SELECT 1"}
	for field, change := range map[string]func(*SQL){
		"":               func(*SQL) {},
		"sql.stats":      func(q *SQL) { q.Stats = "SELECT 0 AS n" },
		"sql.lease":      func(q *SQL) { q.Lease = "SELECT id, body FROM jobs" },
		"sql.extend":     func(q *SQL) { q.Extend = "UPDATE jobs SET nothing = @seconds" },
		"sql.ack":        func(q *SQL) { q.Ack = "DELETE jobs" },
		"sql.nack":       func(q *SQL) { q.Nack = "SELECT no_such_function(@id)" },
		"bytea: true":    func(q *SQL) { q.Text = true },
		"no column dead": func(q *SQL) { q.Tells = []string{"dead"} },
	} {
		sql := good
		change(&sql)
		q, err := New(t.Context(), at(s, Config{SQL: &sql}))
		switch {
		case field == "" && err != nil:
			t.Error(err)
		case field != "" && (!errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), field)):
			t.Errorf("%s: %v", field, err)
		}
		if err == nil {
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	// A reading that is none is an error, not zero.
	for _, stats := range []string{"SELECT NULL::int AS backlog", "SELECT -1 AS backlog", "SELECT 1 AS backlog WHERE false", "SELECT 1 AS backlog UNION ALL SELECT 2", "SELECT 1 / 0 AS backlog", "SELECT 'many' AS backlog"} {
		q := open(t, s, readOnly(stats))
		if st, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %+v, %v; want ErrInvalid", stats, st, err)
		}
	}
	q := open(t, s, readOnly("SELECT count(*) AS backlog FROM no_such_table"))
	if _, err := q.Stats(t.Context()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("no table: %v", err)
	}
}

func readingOnly(t *testing.T, s *servers.Postgres) {
	q := open(t, s, readOnly("SELECT 7 AS backlog, 2.5 AS oldest_seconds, 3 AS arrived", "oldest_seconds", "arrived"))
	st, err := q.Stats(t.Context())
	if age := time.Since(st.Oldest); err != nil || st.Backlog != 7 || st.Arrived != 3 || age < 2*time.Second || age > 20*time.Second {
		t.Errorf("%+v, %v", st, err)
	}
	if tr := q.Traits(); tr.Push || !tr.Oldest || !tr.Arrived || tr.Dead || tr.InFlight {
		t.Errorf("%+v", tr)
	}
	_, err = q.Receive(t.Context(), 1, time.Minute)
	if !errors.Is(err, fleet.ErrInvalid) || !errors.Is(q.Ack(t.Context(), fleet.Message{ID: "1", Receipt: "1"}), fleet.ErrInvalid) {
		t.Errorf("received from a queue that can only be read: %v", err)
	}
}

// strangers: receipts from before the queue was changed are lost leases.
func strangers(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "strangers", Create: true})
	sql := documented(t, "river_job")
	exec(t, s, foreigners[0].create)
	r := open(t, s, Config{SQL: &sql})
	for _, m := range []fleet.Message{{ID: "m1", Receipt: "r1"}, {ID: "1", Receipt: "1 1"}, {ID: "1", Receipt: strings.Repeat("-", 36)}, {ID: "99999999999999999999", Receipt: "1"}, {}} {
		if err := q.Ack(t.Context(), m); !errors.Is(err, fleet.ErrFenced) && !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
		if err := r.Ack(t.Context(), m); !errors.Is(err, fleet.ErrFenced) {
			t.Errorf("river, %+v: %v", m, err)
		}
	}
}

func reasons(t *testing.T, s *servers.Postgres) {
	q := open(t, s, Config{Table: "reasons", Create: true})
	if _, err := q.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, why := range []string{"", "nul\x00 and \xff", strings.Repeat("ł", 9000)} {
		exec(t, s, `INSERT INTO reasons (body, headers) VALUES ('x', '[1, 2]')`)
		m, err := q.Receive(t.Context(), 1, time.Minute)
		if err != nil || len(m) != 1 {
			t.Fatal(m, err)
		}
		if err := q.DeadLetter(t.Context(), m[0], why); err != nil {
			t.Errorf("%.20q: %v", why, err)
		}
	}
}

func FuzzRow(f *testing.F) {
	f.Add("1", "r", "body", "2", "1.5", `{"a":"b","n":1,"x":null}`)
	f.Add("", "", "", "-1", "NaN", "[]")
	f.Add("x", "y", "", "99999999999999999999", "1e300", "{")
	f.Fuzz(func(t *testing.T, id, receipt, body, number, age, head string) {
		r := row{"id": []byte(id), "receipt": []byte(receipt), "body": []byte(body), "attempt": []byte(number), "age_seconds": []byte(age), "headers": []byte(head), "backlog": []byte(number), "oldest_seconds": []byte(age)}
		now := time.Now()
		if m, err := r.message(now, time.Minute); err == nil {
			if m.Attempt < 1 || m.ID == "" || !utf8.ValidString(m.Receipt) || m.At.After(now) || string(m.Body) != body {
				t.Errorf("%+v", m)
			}
		} else if !errors.Is(err, fleet.ErrInvalid) {
			t.Error(err)
		}
		st, err := r.stats(now)
		if n, perr := strconv.ParseInt(number, 10, 64); err == nil && (perr != nil || n != st.Backlog || st.Oldest.After(now)) {
			t.Errorf("%q was read as %+v", number, st)
		}
		if s, perr := strconv.ParseFloat(age, 64); err == nil && perr == nil && math.IsNaN(s) {
			t.Errorf("age %q was read", age)
		}
	})
}

func FuzzCompile(f *testing.F) {
	f.Add(`SELECT '@id', "@id", @id -- @id` + "\n" + `/* @id */ $x$ @id $x$ a @> b`)
	f.Add("@receipt@id@@id")
	f.Fuzz(func(t *testing.T, sql string) {
		s, err := compile("sql.ack", sql, []string{"id", "receipt"}, nil)
		if err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if len(s.names) > 2 || len(s.values(map[string]string{"id": "1"})) != len(s.names)+1 {
			t.Errorf("parameters %q", s.names)
		}
	})
}
