package fleet

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// Identifiers have a one-letter prefix and 20 lower-case base32 characters:
// 8 of time (milliseconds since the epoch, 40 bits) and 12 of randomness
// (60 bits), so that they sort by creation time and have a fixed width (runsc
// matches containers by prefix).
type (
	// TaskID names a task: "t" and 20 characters.
	TaskID string
	// SandboxID names a sandbox: "s" and 20 characters.
	SandboxID string
	// NodeID names a node.
	NodeID string
	// TenantID names a tenant; "default" where a task names none.
	TenantID string
)

const idAlphabet = "0123456789abcdefghijkmnpqrstuvwx"

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

func newID(prefix string, now time.Time) string {
	var b [13]byte
	ms := uint64(now.UnixMilli())
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], ms)
	copy(b[:5], t[3:])
	_, _ = rand.Read(b[5:]) // crypto/rand.Read never fails (Go 1.24)
	return prefix + idEncoding.EncodeToString(b[:])[:20]
}

// NewTaskID returns a fresh task identifier.
func NewTaskID(now time.Time) TaskID { return TaskID(newID("t", now)) }

// NewSandboxID returns a fresh sandbox identifier.
func NewSandboxID(now time.Time) SandboxID { return SandboxID(newID("s", now)) }

// ValidID reports whether s has the form of an identifier with prefix.
func ValidID(prefix, s string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || len(rest) != 20 {
		return false
	}
	return strings.Trim(rest, idAlphabet) == ""
}
