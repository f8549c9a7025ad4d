// Package pg is what the adapters that keep things in PostgreSQL share
// (store/postgres, archive/postgres): a bounded pool of connections to one
// schema, its migrations, push between processes, and the kinds of errors.
//
// A [Server] needs a server of version 12 or later whose database has the
// encoding UTF8, and sessions of its own: a pooler in between must not share
// sessions between clients (PgBouncer: pool_mode session).
//
// It may import fleet and pgx.
package pg
