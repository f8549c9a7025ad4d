package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// Config says where the queue is. Either URL, or Host and what follows it.
type Config struct {
	// URL is a postgres:// address without a password. What its query may hold
	// is described in PostgreSQL's documentation, "Connection Strings"; several
	// hosts are tried in order.
	URL string
	// Host is a name, an address, or the absolute path of the directory of a
	// Unix socket. Default: 127.0.0.1.
	Host string
	Port int // 1 to 65535; default 5432
	// Database defaults to the user's name, User to "postgres".
	Database, User string
	// Password is read at each new connection; nil: none.
	Password connect.Credential
	// TLS, where enabled, takes the place of the URL's sslmode.
	TLS connect.TLS

	// Table of the queue, "name" or "schema.name", in lower case; the schema
	// defaults to public. Default: muster_queue. Of no meaning beside SQL.
	Table string
	// Create makes the table where it is missing.
	Create bool
	// ReadOnly: others work the queue off. No table is made, no lease returned
	// and no count folded; of SQL only Stats is used, in transactions that cannot
	// write.
	ReadOnly bool
	// SQL is how somebody else's table is used; nil: Table is ours.
	SQL *SQL

	// Poll does without LISTEN, which poolers that share connections between
	// clients do not have; Traits.Push is false then.
	Poll bool
	// Connections of the pool, 1 to 100; default 8. One more listens.
	Connections int
	// Consumer names this process in the table: at most 200 bytes. Default:
	// muster.
	Consumer string
	// Log hears of push that is lost and found; nil: nobody.
	Log *slog.Logger
}

// SQL are statements on somebody else's table; see the package documentation
// for their parameters and columns.
type SQL struct {
	// Stats reads the signals; the others may all be empty, and the queue can
	// only be read then.
	Stats string
	// Tells lists the columns of Stats beside backlog: "delayed", "in_flight",
	// "dead", "oldest_seconds", "arrived".
	Tells []string

	Lease, Extend, Ack, Nack, DeadLetter string
	// Text says that a body is text: json, jsonb or text. Otherwise its column
	// is bytea.
	Text bool
	// Channel is listened to: any notification on it is an arrival. Empty: the
	// queue is polled.
	Channel string
}

const (
	// patience bounds each call; the contract's bound is 5 s.
	patience = 4500 * time.Millisecond
	// greeting bounds what New waits for a server that does not answer.
	greeting = time.Second
	// maxName leaves room for the suffixes of what belongs to a table within
	// the 63 bytes of an identifier ("Identifiers and Key Words").
	maxName = 48
	maxSQL  = 64 << 10
)

var tableName = regexp.MustCompile(`^(?:([a-z_][a-z0-9_]*)\.)?([a-z_][a-z0-9_]*)$`)

func invalid(field, right, wrong string, args ...any) error {
	return &fleet.FieldError{Field: field, Wrong: fmt.Sprintf(wrong, args...), Right: right}
}

// check fills in defaults and reports the first field that is wrong.
func (c *Config) check() error {
	if c.Consumer == "" {
		c.Consumer = "muster"
	}
	if len(c.Consumer) > 200 || strings.ContainsRune(c.Consumer, 0) {
		return invalid("consumer", "at most 200 bytes without NUL", "has %d bytes", len(c.Consumer))
	}
	if c.Connections == 0 {
		c.Connections = 8
	}
	if c.Connections < 1 || c.Connections > 100 {
		return invalid("connections", "1 to 100", "%d", c.Connections)
	}
	if c.SQL != nil {
		if c.Table != "" || c.Create {
			return invalid("table", "sql for somebody else's table, or table and create for Muster's own", "is set beside sql")
		}
		return c.SQL.check()
	}
	if c.Table == "" {
		c.Table = "muster_queue"
	}
	_, err := parseTable(c.Table)
	return err
}

func (s *SQL) check() error {
	if len(s.Channel) > 63 {
		return invalid("sql.channel", "at most 63 bytes, as PostgreSQL limits names", "has %d bytes", len(s.Channel))
	}
	for i, name := range s.Tells {
		if !slices.Contains(told, name) || slices.Contains(s.Tells[:i], name) {
			return invalid("sql.tells", "each at most once: "+strings.Join(told, ", "), "%q", name)
		}
	}
	if s.Stats == "" {
		return invalid("sql.stats", "a query with the column backlog", "is missing")
	}
	set, missing := 0, ""
	for _, f := range s.consuming() {
		if f.text != "" {
			set++
		} else if missing == "" {
			missing = f.name
		}
	}
	if set > 0 && missing != "" {
		return invalid(missing, "all of lease, extend, ack, nack and deadLetter, or none to only read", "is missing")
	}
	return nil
}

type field struct{ name, text string }

func (s *SQL) consuming() []field {
	return []field{
		{"sql.lease", s.Lease}, {"sql.extend", s.Extend}, {"sql.ack", s.Ack}, {"sql.nack", s.Nack}, {"sql.deadLetter", s.DeadLetter},
	}
}

// address is the connection string; it never has a password in it.
func (c *Config) address() (string, error) {
	if c.URL == "" {
		return c.assembled()
	}
	if c.Host != "" || c.Port != 0 || c.Database != "" || c.User != "" {
		return "", invalid("url", "url, or host, port, database and user", "is set beside host, port, database or user")
	}
	u, err := parseURL(c.URL)
	if err != nil {
		// Without the cause: it would show the URL, and what is in it.
		return "", invalid("url", "postgres://user@host:5432/database", "is no address of PostgreSQL")
	}
	query := u.Query()
	if _, in := u.User.Password(); in || query.Has("password") || query.Has("sslpassword") {
		return "", invalid("url", "an address without a password, and the field password", "has a password in it")
	}
	address := c.URL
	if c.TLS.Enabled {
		for _, k := range []string{"sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "sslnegotiation"} {
			if query.Has(k) {
				return "", invalid("url", "TLS in one place", "has %s beside the field tls", k)
			}
		}
		if u.RawQuery == "" {
			address = strings.TrimSuffix(address, "?") + "?sslmode=disable" // TLS is set afterwards
		} else {
			address += "&sslmode=disable"
		}
	}
	return address, nil
}

var authority = regexp.MustCompile(`^(postgres(?:ql)?://)((?:[^/?#]*@)?)[^/?#@]*(.*)$`)

// parseURL reads all but the hosts: a list of them with ports, as PostgreSQL
// has it, is no URL to others.
func parseURL(s string) (*url.URL, error) {
	m := authority.FindStringSubmatch(s)
	if m == nil || strings.ContainsAny(m[3], "#@") { // @: an unescaped / in a password
		return nil, fleet.ErrInvalid
	}
	return url.Parse(m[1] + m[2] + "hosts" + m[3])
}

func (c *Config) assembled() (string, error) {
	if c.Port < 0 || c.Port > 65535 {
		return "", invalid("port", "1 to 65535", "%d", c.Port)
	}
	host, port, user := c.Host, c.Port, c.User
	if host == "" {
		host = "127.0.0.1"
	}
	if port == 0 {
		port = 5432
	}
	if user == "" {
		user = "postgres"
	}
	database := c.Database
	if database == "" {
		database = user
	}
	u := url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + database, RawQuery: "sslmode=disable"}
	if strings.HasPrefix(host, "/") {
		u.RawQuery += "&host=" + url.QueryEscape(host) + "&port=" + strconv.Itoa(port)
	} else {
		u.Host = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
	}
	return u.String(), nil
}

// pool is the configuration of connections, of the pool and of the listener.
func (c *Config) pool() (*pgxpool.Config, error) {
	address, err := c.address()
	if err != nil {
		return nil, err
	}
	p, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("address of PostgreSQL: %w: %w", fleet.ErrInvalid, err)
	}
	if _, err := c.TLS.Config(); err != nil {
		return nil, err
	}
	p.MaxConns = int32(c.Connections) //nolint:gosec // at most 100
	p.MinConns, p.MinIdleConns = 0, 0
	p.PingTimeout = patience
	p.ConnConfig.ConnectTimeout = patience
	if p.ConnConfig.RuntimeParams["application_name"] == "" {
		p.ConnConfig.RuntimeParams["application_name"] = c.Consumer
	}
	p.BeforeConnect = c.beforeConnect
	return p, nil
}

// beforeConnect reads what may have changed since: the password, certificates.
func (c *Config) beforeConnect(ctx context.Context, cc *pgx.ConnConfig) error {
	if c.Password != nil {
		password, err := c.Password.Value(ctx)
		if err != nil {
			return fmt.Errorf("password: %w", err)
		}
		if strings.ContainsRune(password, 0) {
			return errors.New("password: has a NUL in it")
		}
		cc.Password = password
	}
	if !c.TLS.Enabled {
		return nil
	}
	secured := func(host string) (err error) {
		cc.TLSConfig, err = c.TLS.Config()
		if err == nil && cc.TLSConfig.ServerName == "" {
			cc.TLSConfig.ServerName = host
		}
		return err
	}
	for _, f := range cc.Fallbacks {
		if err := secured(f.Host); err != nil {
			return err
		}
		f.TLSConfig = cc.TLSConfig
	}
	return secured(cc.Host)
}
