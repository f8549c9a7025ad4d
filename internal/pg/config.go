package pg

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster.dev/muster/internal/fleet"
)

// Options shape a Server; the zero value is good.
type Options struct {
	// Schema that everything is kept in, in lower case, at most 48 bytes; it is
	// made if need be. Empty: "muster".
	Schema string
	// Connections of the pool, 1 to 200; 0: 16. One more listens.
	Connections int
	// Patience bounds each call, and each statement on the server; 0: 10 s.
	Patience time.Duration
	// Poll does without the connection that listens.
	Poll bool
	// Application names this process to the server; empty: "muster".
	Application string
	// Log hears of push that is lost and found, and of trouble in the
	// background; nil: nobody.
	Log *slog.Logger
}

// longestSchema leaves room for a suffix within the 63 bytes of an identifier
// (PostgreSQL's documentation, "Identifiers and Key Words").
const longestSchema = 48

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// Check fills in defaults and reports the first field that is wrong, as a
// *fleet.FieldError.
func (o *Options) Check() error {
	if o.Schema == "" {
		o.Schema = "muster"
	}
	if !schemaName.MatchString(o.Schema) || len(o.Schema) > longestSchema || strings.HasPrefix(o.Schema, "pg_") {
		return &fleet.FieldError{
			Field: "schema", Wrong: fmt.Sprintf("%.80q is no name of a schema of ours", o.Schema),
			Right: fmt.Sprintf("lower-case letters, digits and _, at most %d, not pg_…", longestSchema),
		}
	}
	if o.Connections == 0 {
		o.Connections = 16
	}
	if o.Connections < 1 || o.Connections > 200 {
		return &fleet.FieldError{Field: "connections", Wrong: strconv.Itoa(o.Connections), Right: "1 to 200"}
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Patience < 100*time.Millisecond || o.Patience > 10*time.Minute {
		return &fleet.FieldError{Field: "patience", Wrong: o.Patience.String(), Right: "100ms to 10m"}
	}
	if o.Application == "" {
		o.Application = "muster"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

var unsafe = regexp.MustCompile(`[^a-z0-9]+`)

// SchemaFor is a schema's name made of parts (the namespace and the name of a
// fleet). Different parts have different names.
func SchemaFor(parts ...string) string {
	var b strings.Builder
	b.WriteString("muster")
	plain := true
	for _, p := range parts {
		safe := unsafe.ReplaceAllString(p, "_")
		plain = plain && safe == p
		b.WriteByte('_')
		b.WriteString(safe)
	}
	name := b.String()
	if plain && len(parts) < 2 && len(name) <= longestSchema {
		return name
	}
	// The mark keeps "a-b", "c" and "a", "b-c" apart, and names that were cut.
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	mark := "_" + hex.EncodeToString(sum[:5])
	return name[:min(len(name), longestSchema-len(mark))] + mark
}

// pool is the configuration of the connections.
func (o *Options) pool(dsn string) (*pgxpool.Config, error) {
	p, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, badDSN(err)
	}
	p.MaxConns = int32(o.Connections) //nolint:gosec // at most 200
	p.MinConns, p.MinIdleConns = 0, 0
	p.PingTimeout = o.Patience
	c := p.ConnConfig
	if c.ConnectTimeout == 0 || c.ConnectTimeout > o.Patience {
		c.ConnectTimeout = o.Patience
	}
	ms := strconv.FormatInt(o.Patience.Milliseconds(), 10)
	for name, value := range map[string]string{
		"application_name": o.Application, "statement_timeout": ms, "lock_timeout": ms,
		// A process that was cut off in a transaction must not hold up others.
		"idle_in_transaction_session_timeout": ms,
		// Every query goes by an index, or reads a table of some rows. The planner
		// is to find that when tables are new and it knows nothing of them, too;
		// and none runs long enough for compiling it to pay.
		"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
	} {
		if c.RuntimeParams[name] == "" {
			c.RuntimeParams[name] = value
		}
	}
	c.RuntimeParams["search_path"] = o.Schema
	return p, nil
}

// badDSN says what is wrong without repeating the DSN, which has a password.
func badDSN(err error) error {
	wrong := "cannot be read"
	var file *fs.PathError
	if errors.As(err, &file) {
		wrong = "names a file that cannot be read: " + file.Error()
	}
	return &fleet.FieldError{
		Field: "dsn", Wrong: wrong,
		Right: "postgres://user:password@host:5432/database, or words such as host=… user=…, as PostgreSQL's documentation has it under \"Connection Strings\"",
	}
}
