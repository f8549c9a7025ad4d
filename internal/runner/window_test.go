//go:build linux

package runner

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// TestWindowKeepsEveryByte writes, reads and acknowledges in any order, going
// back to what was acknowledged as a reconnect does.
func TestWindowKeepsEveryByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		w := newWindow(start, 0, func() {})
		var all []byte
		streams := map[int64]fleet.Stream{} // by offset
		base, next := start, start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "read", "read", "ack", "back"}).Draw(t, "op") {
			case "write":
				n := rapid.OneOf(rapid.IntRange(1, 50), rapid.IntRange(1, 90000)).Draw(t, "n")
				n = min(n, protocol.LogWindow-int(start+int64(len(all))-base))
				p := bytes.Repeat([]byte{byte(len(all)), byte(len(all) >> 3), 7}, n/3+1)[:n]
				st := fleet.Stream(rapid.IntRange(1, 2).Draw(t, "stream"))
				if n > 0 {
					streams[start+int64(len(all))] = st
				}
				w.write(st, p)
				all = append(all, p...)
			case "read":
				buf := make([]byte, rapid.IntRange(1, protocol.MaxChunk).Draw(t, "buf"))
				h, n := w.read(next, buf)
				if end := start + int64(len(all)); (n == 0) != (next == end) {
					t.Fatalf("read %d at %d of %d", n, next, end)
				}
				if !bytes.Equal(buf[:n], all[next-start:][:n]) {
					t.Fatal("other bytes than written")
				}
				for at := next; n > 0 && at >= start; at-- {
					if st, ok := streams[at]; ok {
						if st != h.Stream {
							t.Fatalf("stream %d, want %d", h.Stream, st)
						}
						break
					}
				}
				next += int64(n)
			case "ack":
				base = rapid.Int64Range(base, next).Draw(t, "to")
				w.ack(base)
			case "back":
				next = base
			}
			if b, e := w.bounds(); b != base || e != start+int64(len(all)) {
				t.Fatalf("bounds %d %d, want %d %d", b, e, base, start+int64(len(all)))
			}
		}
	})
}

func TestWindowClosedLetsWritersGo(t *testing.T) {
	w := newWindow(0, 0, func() {})
	var wg sync.WaitGroup
	wg.Go(func() { w.write(1, make([]byte, 4*protocol.LogWindow)) })
	for !w.blocked() {
		continue
	}
	w.close()
	wg.Wait()
}

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"a.txt", []string{"a.txt"}, []string{"b/a.txt", "a.txtx"}},
		{"dist", []string{"dist", "dist/a", "dist/a/b"}, []string{"distx", "x/dist"}},
		{"dist/", []string{"dist/a"}, []string{"dist2/a"}},
		{"./x/*.log", []string{"x/a.log"}, []string{"x/y/a.log", "x/a.txt"}},
		{"**/*.log", []string{"a.log", "x/a.log", "x/y/z/a.log"}, []string{"a.txt", "log"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/c/z", "a/z/z"}, []string{"z", "b/z", "a/zz"}},
		{"a/**", []string{"a/b", "a/b/c"}, []string{"b"}},
		{"**", []string{"a", "a/b"}, nil},
		{"**/a/**/b", []string{"a/b", "x/a/y/b", "a/a/b/b"}, []string{"b/a", "a"}},
		{"[ab]?", []string{"ax", "by"}, []string{"cx", "a"}},
	} {
		g, err := parseGlob(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range c.yes {
			if !g.match(f) {
				t.Errorf("%s does not match %s", c.pattern, f)
			}
		}
		for _, f := range c.no {
			if g.match(f) {
				t.Errorf("%s matches %s", c.pattern, f)
			}
		}
	}
	for p, want := range map[string]string{"a/b/*.x": "a/b", "a": ".", "**/x": ".", "a/b": "a", "a*/b": "."} {
		if g, _ := parseGlob(p); g.base() != want {
			t.Errorf("base of %s is %s", p, g.base())
		}
	}
	for _, p := range []string{"", "/", "/a", "../a", "a/../b", "a//b", "["} {
		if _, err := parseGlob(p); err == nil {
			t.Errorf("%q accepted", p)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("**/a*/**/[b-c]?", "x/ab/y/bz")
	f.Add(strings.Repeat("**/a/", 30)+"b", strings.Repeat("a/", 60))
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := parseGlob(pattern)
		if err != nil {
			return
		}
		_ = g.match(name)
		if b := g.base(); strings.HasPrefix(b, "/") || strings.Contains(b, "..") && !strings.Contains(pattern, "...") && strings.Contains("/"+b+"/", "/../") {
			t.Fatalf("base %q of %q", b, pattern)
		}
	})
}

func TestSameRepo(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://x/y.git", "https://x/y", true},
		{"https://u:p@x/y", "https://x/y/", true},
		{"/a/b", "/a/b/", true},
		{"https://x/y", "https://x/z", false},
		{"", "https://x/z", false},
	} {
		if sameRepo(c.a, c.b) != c.same {
			t.Errorf("%s and %s", c.a, c.b)
		}
	}
}
