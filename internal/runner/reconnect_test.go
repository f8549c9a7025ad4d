//go:build linux

package runner_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

// cutter breaks connections after so many bytes in either direction.
type cutter struct {
	mu   sync.Mutex
	cuts []int
}

func (c *cutter) wrap(nc net.Conn) io.ReadWriteCloser {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.cuts) == 0 {
		return nc
	}
	n := c.cuts[0]
	c.cuts = c.cuts[1:]
	return &cutConn{Conn: nc, left: n}
}

type cutConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutConn) take(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.left)
	c.left -= n
	return n
}

var errCut = errors.New("the connection was cut")

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if m := c.take(n); m < n {
		_ = c.Conn.Close()
		return m, errCut
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	if m := c.take(len(p)); m < len(p) {
		n, _ := c.Conn.Write(p[:m])
		_ = c.Conn.Close()
		return n, errCut
	}
	return c.Conn.Write(p)
}

// TestCutsLoseNothing cuts the connection at random places while log, patch,
// artifacts and report go over it: the host ends up with each byte once.
func TestCutsLoseNothing(t *testing.T) {
	up, _ := upstream(t)
	rapid.Check(t, func(rt *rapid.T) {
		var c cutter
		for range rapid.IntRange(1, 12).Draw(rt, "cuts") {
			c.cuts = append(c.cuts, rapid.OneOf(rapid.IntRange(0, 3000), rapid.IntRange(0, 200000)).Draw(rt, "after"))
		}
		size := rapid.IntRange(0, 700000).Draw(rt, "log")
		b := newBox(t)
		b.dialed = c.wrap
		b.start()
		if err := b.s.Ready(wait(t)); err != nil {
			rt.Fatalf("ready: %v", err)
		}
		s := newSink()
		a := assign("sh", "-c", fmt.Sprintf("head -c %d /dev/urandom | tee log.ignored; echo more > more.txt; cp log.ignored art", size))
		a.Artifacts = []string{"log.ignored", "more.txt"}
		repo := rapid.IntRange(0, 4).Draw(rt, "repo") == 0 // git is slow to start
		if repo {
			a.Repo = &fleet.Repo{URL: up}
		}
		if err := b.s.Claim(wait(t), a, s); err != nil {
			rt.Fatalf("claim: %v", err)
		}
		r := b.finish(s)
		want, _ := os.ReadFile(filepath.Join(b.workspace, "log.ignored"))
		if got := s.out(fleet.StreamStdout); sha256.Sum256([]byte(got)) != sha256.Sum256(want) {
			rt.Errorf("log of %d bytes, want %d", len(got), len(want))
		}
		if sha256.Sum256(s.artifacts["log.ignored"]) != sha256.Sum256(want) || string(s.artifacts["more.txt"]) != "more\n" {
			rt.Errorf("artifacts %d bytes", len(s.artifacts["log.ignored"]))
		}
		if repo != (r.PatchBytes > 0) || r.PatchBytes != int64(len(s.patch)) {
			rt.Errorf("patch of %d bytes, got %d", r.PatchBytes, len(s.patch))
		}
		_ = b.s.Close()
		b.stop()
	})
}

// restart replaces the control plane's end, as after a kill.
func (b *box) restart() {
	b.t.Helper()
	_ = b.s.Close()
	b.o.Prepare = []string{"exit 1"} // must be ignored
	b.listen()
}

func TestControlPlaneRestarts(t *testing.T) {
	t.Parallel()
	const n = 20000
	b := newBox(t).start().ready()
	b.restart()
	if task, _, alive := b.s.Held(wait(t)); task != "" || !alive {
		t.Fatalf("held %q %v", task, alive)
	}
	b.ready()
	s := newSink()
	a := assign("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; done; echo art > art", n))
	a.Artifacts = []string{"art"}
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	for range 15 {
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
		b.restart()
		select {
		case <-s.ended: // between two restarts
			b.finish(s)
			return
		default:
		}
		task, fence, alive := b.s.Held(wait(t))
		if !alive || task != a.Task || fence != a.Fence {
			t.Fatalf("held %q/%d %v", task, fence, alive)
		}
		if err := b.s.Claim(wait(t), a, s); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.finish(s); r.Reason != fleet.ReasonNone || string(s.artifacts["art"]) != "art\n" {
		t.Fatalf("%+v", r)
	}
	var want string
	for i := 1; i <= n; i++ {
		want += fmt.Sprintf("line %d\n", i)
	}
	if got := s.out(fleet.StreamStdout); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func TestOutputWaitsForTheControlPlane(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	s := newSink()
	a := assign("sh", "-c", "head -c 3000000 /dev/zero; echo x > end")
	a.Timeouts.Idle = 300 * time.Millisecond // waiting for us is not idleness
	hold := make(chan struct{})
	s.onLog = func(int64) error { <-hold; return nil }
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if _, err := os.Stat(filepath.Join(b.workspace, "end")); err == nil {
		t.Error("the agent went on though nobody took its output")
	}
	close(hold)
	r := b.finish(s)
	if n := len(s.out(fleet.StreamStdout)); r.Reason != fleet.ReasonNone || n != 3000000 {
		t.Errorf("%d bytes, %+v", n, r)
	}
}

func TestReportIsSentUntilStored(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	s := newSink()
	s.sinkFails(3)
	a := assign("sh", "-c", "echo x > f")
	a.Artifacts = []string{"f"}
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	b.finish(s)
	select {
	case err := <-b.ended:
		if err != nil {
			t.Error(err)
		}
		b.ended <- nil
	case <-time.After(10 * time.Second):
		t.Error("the runner did not exit")
	}
}

// sinkFails makes storing files and reports fail n times each.
func (s *sink) sinkFails(n int) {
	var mu sync.Mutex
	fail := func(left int) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if left--; left >= 0 {
				return errors.New("disk full")
			}
			return nil
		}
	}
	s.onFile, s.onDone = fail(n), fail(n)
}

func TestReportOutlivesTheControlPlane(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	s := newSink()
	a := assign("sh", "-c", "echo hello")
	s.onDone = func() error { return errors.New("not now") }
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	<-s.firstLog
	_ = b.s.Close()
	s.onDone = nil
	time.Sleep(50 * time.Millisecond)
	b.restart()
	if task, _, alive := b.s.Held(wait(t)); task != a.Task || !alive {
		t.Fatalf("held %q %v", task, alive)
	}
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	if r := b.finish(s); r.Reason != fleet.ReasonNone || s.out(fleet.StreamStdout) != "hello\n" {
		t.Errorf("%+v", r)
	}
}

func TestLostComesAfterEverythingSent(t *testing.T) {
	t.Parallel()
	b := newBox(t).start().ready()
	s := newSink()
	if err := b.s.Claim(wait(t), assign("sh", "-c", "echo last words; exec sleep 60"), s); err != nil {
		t.Fatal(err)
	}
	<-s.firstLog
	b.stop() // the runner dies
	b.s.End(&fleet.ReasonError{Reason: fleet.ReasonOOM, Err: errors.New("memory")})
	<-s.ended
	var re *fleet.ReasonError
	if !errors.As(s.lost, &re) || re.Reason != fleet.ReasonOOM || s.out(fleet.StreamStdout) != "last words\n" {
		t.Errorf("%v %q", s.lost, s.out(fleet.StreamStdout))
	}
}
