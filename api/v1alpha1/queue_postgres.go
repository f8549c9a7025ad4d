package v1alpha1

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// PostgresQueue is a queue in a table of PostgreSQL: Muster's own, or with sql
// somebody else's.
type PostgresQueue struct {
	URL      string `json:"url,omitempty" doc:"postgres://user@host:5432/database, without a password; or host, port, database and user"`
	Host     string `json:"host,omitempty" doc:"Name, address, or the directory of a Unix socket; default 127.0.0.1"`
	Port     int    `json:"port,omitempty" minimum:"1" maximum:"65535" doc:"Default 5432"`
	Database string `json:"database,omitempty" doc:"Default: the user's name"`
	User     string `json:"user,omitempty" doc:"Default postgres"`
	// Password is read again for each new connection.
	Password *Credential `json:"password,omitempty"`
	TLS      *QueueTLS   `json:"tls,omitempty"`

	Table  string `json:"table,omitempty" doc:"name or schema.name; default muster_queue in the schema public"`
	Create bool   `json:"create,omitempty" doc:"Make the table where it is missing"`
	// Poll does without LISTEN, for poolers that share connections between
	// clients.
	Poll        bool         `json:"poll,omitempty"`
	Connections int          `json:"connections,omitempty" minimum:"1" maximum:"100" doc:"Of the pool; default 8"`
	SQL         *PostgresSQL `json:"sql,omitempty"`
}

// PostgresSQL says how somebody else's table is used; see
// docs/queues/postgres.md for parameters and columns.
type PostgresSQL struct {
	Stats      string   `json:"stats" doc:"Query of one row: backlog, and the columns in tells"`
	Tells      []string `json:"tells,omitempty" doc:"delayed, in_flight, dead, oldest_seconds, arrived"`
	Lease      string   `json:"lease,omitempty" doc:"@n, @seconds, @consumer; gives id, receipt, body"`
	Extend     string   `json:"extend,omitempty" doc:"@id, @receipt, @seconds, @consumer"`
	Ack        string   `json:"ack,omitempty" doc:"@id, @receipt, @consumer"`
	Nack       string   `json:"nack,omitempty" doc:"@id, @receipt, @seconds, @consumer"`
	DeadLetter string   `json:"deadLetter,omitempty" doc:"@id, @receipt, @reason, @consumer"`
	Text       bool     `json:"text,omitempty" doc:"The column body is json, jsonb or text, not bytea"`
	Channel    string   `json:"channel,omitempty" doc:"Channel of LISTEN on which arrivals are notified"`
}

var postgresTable = regexp.MustCompile(`^(?:[a-z_][a-z0-9_]*\.)?[a-z_][a-z0-9_]*$`)

func (q *PostgresQueue) validate(ps *problems, field string) {
	q.address(ps, field)
	ps.credential(sub(field, "password"), q.Password)
	ps.tls(sub(field, "tls"), q.TLS)
	ps.whole(sub(field, "connections"), q.Connections, 1, 100)
	if q.SQL != nil {
		if q.Table != "" || q.Create {
			ps.addf(sub(field, "sql"), "sql for somebody else's table, or table and create for Muster's own", "is set beside table or create")
		}
		q.SQL.validate(ps, sub(field, "sql"))
		return
	}
	if q.Table == "" {
		return
	}
	// Room for the suffixes of what belongs to the table, and for the channel
	// that has the table's name, within PostgreSQL's 63 bytes.
	if name := q.Table[strings.LastIndexByte(q.Table, '.')+1:]; !postgresTable.MatchString(q.Table) || len(name) > 48 || len(q.Table) > 63 {
		ps.addf(sub(field, "table"), "name or schema.name of lower case letters, digits and _, at most 48 bytes and 63 with the schema", "%q", clip(q.Table))
	}
}

// address checks where the server is.
func (q *PostgresQueue) address(ps *problems, field string) {
	ps.whole(sub(field, "port"), q.Port, 1, 65535)
	for _, f := range []struct{ name, value string }{{"host", q.Host}, {"database", q.Database}, {"user", q.User}} {
		if f.value != "" {
			ps.printable(sub(field, f.name), f.value, 255)
		}
	}
	if strings.HasPrefix(q.Host, "/") && path.Clean(q.Host) != q.Host {
		ps.addf(sub(field, "host"), "the absolute path of a directory", "%q is not plain", clip(q.Host))
	}
	if q.URL == "" {
		return
	}
	field = sub(field, "url")
	if q.Host != "" || q.Port != 0 || q.Database != "" || q.User != "" {
		ps.addf(field, "url, or host, port, database and user", "is set beside host, port, database or user")
	}
	u, err := parsePostgresURL(q.URL)
	if err != nil {
		// Not shown: it may have a password in it.
		ps.addf(field, "postgres://user@host:5432/database", "is no address of PostgreSQL")
		return
	}
	query := u.Query()
	if _, in := u.User.Password(); in || query.Has("password") || query.Has("sslpassword") {
		ps.addf(field, "an address without a password, and the field password", "has a password in it")
	}
	if q.TLS == nil {
		return
	}
	for _, k := range []string{"sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "sslnegotiation"} {
		if query.Has(k) {
			ps.addf(field, "TLS in one place", "has %s beside the field tls", k)
		}
	}
}

var postgresURL = regexp.MustCompile(`^(postgres(?:ql)?://)((?:[^/?#]*@)?)[^/?#@]*(.*)$`)

// parsePostgresURL reads all but the hosts: a list of them with ports, as
// PostgreSQL has it, is no URL to others.
func parsePostgresURL(s string) (*url.URL, error) {
	m := postgresURL.FindStringSubmatch(s)
	if m == nil || strings.ContainsAny(m[3], "#@") { // @: an unescaped / in a password
		return nil, fleet.ErrInvalid
	}
	return url.Parse(m[1] + m[2] + "hosts" + m[3])
}

func (s *PostgresSQL) validate(ps *problems, field string) {
	if s.Stats == "" {
		ps.addf(sub(field, "stats"), "a query of one row with the column backlog", "is missing")
	}
	columns := []string{"delayed", "in_flight", "dead", "oldest_seconds", "arrived"}
	for i, c := range s.Tells {
		if !slices.Contains(columns, c) || slices.Contains(s.Tells[:i], c) {
			ps.addf(at(sub(field, "tells"), i), "each at most once: "+strings.Join(columns, ", "), "%q", clip(c))
		}
	}
	if len(s.Channel) > 63 {
		ps.addf(sub(field, "channel"), "at most 63 bytes, as PostgreSQL limits names", "has %d bytes", len(s.Channel))
	}
	all := []struct{ name, text string }{
		{"stats", s.Stats}, {"lease", s.Lease}, {"extend", s.Extend}, {"ack", s.Ack}, {"nack", s.Nack}, {"deadLetter", s.DeadLetter},
	}
	consumes := slices.ContainsFunc(all[1:], func(f struct{ name, text string }) bool { return f.text != "" })
	for i, f := range all {
		if len(f.text) > 64<<10 || strings.ContainsRune(f.text, 0) {
			ps.addf(sub(field, f.name), "at most 64 KiB without NUL", "has %d bytes", len(f.text))
		}
		if i > 0 && consumes && f.text == "" {
			ps.addf(sub(field, f.name), "all of lease, extend, ack, nack and deadLetter, or none to only read", "is missing")
		}
	}
}
