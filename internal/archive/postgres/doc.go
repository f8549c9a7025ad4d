// Package postgres keeps what tasks leave behind (fleet.Archive) in a schema of
// a PostgreSQL database, so that several control planes share logs, patches and
// artifacts. The schema may be that of the store.
//
// A log is rows of at most 64 KiB. Appends that arrive together share a
// transaction; they are committed in order without waiting for the server's
// disk, and EndLog waits for it: a crash of the server may cut the last moment
// of a log that has not ended, which its runner sends again. A file is written
// in chunks of 256 KiB under no name and named when it is whole; the one it
// replaces can be read for another quarter of an hour. Files that nobody named
// within a day, since the process that wrote them died, are deleted.
//
// Whoever watches a log is woken by NOTIFY, and by a look once a second should
// that fail. Memory is bounded by the calls under way: an append sends its own
// bytes, a file one chunk, a reader some pieces.
//
// It may import fleet, pg, archive/names and pgx.
package postgres
