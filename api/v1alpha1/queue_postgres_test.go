package v1alpha1

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func postgresProblems(t *testing.T, text string) string {
	t.Helper()
	var q Queue
	if err := yaml.UnmarshalStrict([]byte("type: postgres\npostgres:\n  "+strings.ReplaceAll(text, "\n", "\n  ")), &q); err != nil {
		t.Fatal(err)
	}
	var ps problems
	q.validate(&ps, "spec.queue")
	if err := ps.err(); err != nil {
		return err.Error()
	}
	return ""
}

func TestPostgresQueue(t *testing.T) {
	for _, good := range []string{
		`create: true`,
		"host: db.internal\nport: 5433\ndatabase: tasks\nuser: muster\npassword: {env: PGPASS}\ntls: {ca: /etc/ca.pem}\ntable: work.agent_tasks\nconnections: 20",
		"url: postgres://muster@db1:5432,db2:5433/tasks?target_session_attrs=read-write&sslmode=verify-full\npoll: true",
		"host: /var/run/postgresql",
		"sql: {stats: SELECT 1 AS backlog}",
		"sql: {stats: s, tells: [dead, arrived], lease: l, extend: e, ack: a, nack: n, deadLetter: d, text: true, channel: public.jobs}",
	} {
		if got := postgresProblems(t, good); got != "" {
			t.Errorf("%s\nrefused: %s", good, got)
		}
	}
	for bad, want := range map[string]string{
		"url: postgres://u:hunter2@h/d":                             "spec.queue.postgres.url: has a password in it",
		"url: postgres://h/d?password=hunter2":                      "spec.queue.postgres.url: has a password in it",
		"url: postgres://u:hunter2/x@h/d":                           "spec.queue.postgres.url: is no address",
		"url: mysql://h":                                            "spec.queue.postgres.url: is no address of PostgreSQL",
		"url: 'postgres://hunter2%zz@h'":                            "spec.queue.postgres.url: is no address of PostgreSQL",
		"url: postgres://h\nuser: u":                                "spec.queue.postgres.url: is set beside",
		"url: postgres://h?sslmode=require\ntls: {}":                "spec.queue.postgres.url: has sslmode beside the field tls",
		"port: 70000":                                               "spec.queue.postgres.port: ",
		"host: /run/../tmp":                                         "spec.queue.postgres.host: ",
		"connections: 101":                                          "spec.queue.postgres.connections: ",
		"table: Tasks":                                              `spec.queue.postgres.table: "Tasks"`,
		"table: a.b.c":                                              "spec.queue.postgres.table: ",
		"table: q; DROP TABLE x":                                    "spec.queue.postgres.table: ",
		"table: " + strings.Repeat("q", 49):                         "spec.queue.postgres.table: ",
		"password: {env: A, file: /b}":                              "spec.queue.postgres.password: names 2 places",
		"tls: {cert: /c.pem}":                                       "spec.queue.postgres.tls: has only one of cert and key",
		"table: q\nsql: {stats: s}":                                 "spec.queue.postgres.sql: is set beside table",
		"sql: {tells: [dead]}":                                      "spec.queue.postgres.sql.stats: is missing",
		"sql: {stats: s, tells: [dead, size]}":                      `spec.queue.postgres.sql.tells[1]: "size"`,
		"sql: {stats: s, tells: [dead, dead]}":                      `spec.queue.postgres.sql.tells[1]: "dead"`,
		"sql: {stats: s, lease: l, ack: a}":                         "spec.queue.postgres.sql.extend: is missing",
		"sql: {stats: s, channel: " + strings.Repeat("c", 64) + "}": "spec.queue.postgres.sql.channel: has 64 bytes",
	} {
		got := postgresProblems(t, bad)
		if !strings.Contains(got, want) {
			t.Errorf("%s\ngot %q\nwant %q in it", bad, got, want)
		}
		if strings.Contains(got, "hunter2") {
			t.Errorf("shows a password: %s", got)
		}
	}
}
