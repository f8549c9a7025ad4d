//go:build linux

package runner

import (
	"strings"
	"sync"
	"unicode/utf8"

	"muster.dev/muster/internal/protocol"
)

// tail keeps the last bytes of output.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) write(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(p) >= protocol.MaxOutput {
		t.b = append(t.b[:0], p[len(p)-protocol.MaxOutput:]...)
		return
	}
	if over := len(t.b) + len(p) - protocol.MaxOutput; over > 0 {
		t.b = t.b[:copy(t.b, t.b[over:])]
	}
	t.b = append(t.b, p...)
}

// String returns the tail as valid text.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.b
	for len(b) > 0 && !utf8.RuneStart(b[0]) {
		b = b[1:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD"))
}

// shorten cuts s for a message.
func shorten(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
