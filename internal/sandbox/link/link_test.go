package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
	"muster.dev/muster/internal/sandbox/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener of in-memory connections, so that time can be virtual.
type pipes struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newPipes() *pipes { return &pipes{ch: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.ch:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// dial connects a raw peer.
func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.ch <- b
	return a
}

// peer plays a runner, honest up to the point the test chooses.
type peer struct {
	t  *testing.T
	nc net.Conn
	pc *protocol.Conn
}

func hello(state protocol.State) protocol.Hello {
	h := protocol.Hello{Magic: protocol.Magic, Version: protocol.Version, Token: "tok", State: state, Now: time.Now().UnixNano()}
	if state == protocol.StateBusy || state == protocol.StateDone {
		h.Task, h.Fence = "t1", 7
	}
	return h
}

func connect(t *testing.T, p *pipes, h protocol.Hello) *peer {
	t.Helper()
	nc := p.dial()
	r := &peer{t: t, nc: nc, pc: protocol.NewConn(nc, protocol.Limits{MaxMessage: protocol.MaxFromHost})}
	if err := r.pc.Send(protocol.TypeHello, h); err != nil {
		t.Fatal(err)
	}
	if typ := r.next(nil); typ != protocol.TypeWelcome {
		t.Fatalf("%s instead of welcome", typ)
	}
	return r
}

// next receives one message, into v if it is not nil.
func (r *peer) next(v any) protocol.Type {
	r.t.Helper()
	typ, payload, err := r.pc.Receive()
	if err != nil {
		r.t.Fatalf("receive: %v", err)
	}
	if v != nil {
		if err := protocol.Decode(typ, payload, v); err != nil {
			r.t.Fatal(err)
		}
	}
	return typ
}

// ends drains until the host closes, and fails when it does not.
func (r *peer) ends() {
	r.t.Helper()
	for {
		if _, _, err := r.pc.Receive(); err != nil {
			return
		}
	}
}

// recorder is a sink; block, when not nil, holds every Log call.
type recorder struct {
	mu    sync.Mutex
	log   []byte
	done  []fleet.RunReport
	lost  error
	block chan struct{}
}

func (s *recorder) LogOffset() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.log))
}

func (s *recorder) Log(_ int64, _ time.Time, _ fleet.Stream, data []byte) error {
	if s.block != nil {
		<-s.block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, data...)
	return nil
}
func (s *recorder) Phase(fleet.TaskState, time.Time) error { return nil }
func (s *recorder) Patch(_ int64, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func (s *recorder) Artifact(a fleet.Artifact, r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != a.Bytes {
		return errors.New("short")
	}
	return err
}

func (s *recorder) Done(r fleet.RunReport) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, r)
	return nil
}

func (s *recorder) Lost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = err
}

var assignment = fleet.Assignment{Task: "t1", Fence: 7, Command: []string{"x"}, LogBytes: 1 << 20}

// claimed returns a peer that has accepted a task.
func claimed(t *testing.T, p *pipes, s *link.Session, sink fleet.TaskSink) *peer {
	t.Helper()
	r := connect(t, p, hello(protocol.StateReady))
	res := make(chan error)
	go func() { res <- s.Claim(t.Context(), assignment, sink) }()
	var c protocol.Claim
	if typ := r.next(&c); typ != protocol.TypeClaim || c.Assignment.Task != "t1" {
		t.Fatalf("%s %+v", typ, c)
	}
	if err := r.pc.Send(protocol.TypeAccepted, protocol.TaskRef{Task: "t1", Fence: 7}); err != nil {
		t.Fatal(err)
	}
	if err := <-res; err != nil {
		t.Fatal(err)
	}
	return r
}

// bubble runs f with a session on virtual time.
func bubble(t *testing.T, f func(t *testing.T, p *pipes, s *link.Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		s := link.Serve(p, link.Options{Token: "tok"})
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, p, s)
	})
}

func TestHandshakeRefusals(t *testing.T) {
	with := func(f func(*protocol.Hello)) protocol.Hello {
		h := hello(protocol.StateReady)
		f(&h)
		return h
	}
	for name, h := range map[string]protocol.Hello{
		"token":   with(func(h *protocol.Hello) { h.Token = "guess" }),
		"empty":   with(func(h *protocol.Hello) { h.Token = "" }),
		"magic":   with(func(h *protocol.Hello) { h.Magic = "http" }),
		"version": with(func(h *protocol.Hello) { h.Version = 99 }),
		"state":   with(func(h *protocol.Hello) { h.State = "dancing" }),
		"task":    with(func(h *protocol.Hello) { h.Task = "t1" }),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
				nc := p.dial()
				pc := protocol.NewConn(nc, protocol.Limits{})
				if err := pc.Send(protocol.TypeHello, h); err != nil {
					t.Fatal(err)
				}
				typ, _, err := pc.Receive()
				if err != nil || typ != protocol.TypeRefuse {
					t.Fatalf("%s %v", typ, err)
				}
				if _, _, err := pc.Receive(); err == nil {
					t.Error("still connected")
				}
				_ = pc.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := s.Ready(ctx); err == nil {
					t.Error("ready")
				}
			})
		})
	}
}

func TestSilentPeersDoNotKeepTheRunnerOut(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		for range 3 {
			nc := p.dial()
			defer func() { _ = nc.Close() }()
		}
		connect(t, p, hello(protocol.StateReady))
		if err := s.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		nc := p.dial() // and is thrown out after the handshake's time
		begin := time.Now()
		if _, err := nc.Read(make([]byte, 1)); err == nil || time.Since(begin) > protocol.HandshakeTimeout+time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestClaimNeverAcceptedReturns(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		r := connect(t, p, hello(protocol.StateReady))
		go r.ends()
		begin := time.Now()
		sink := &recorder{}
		if err := s.Claim(t.Context(), assignment, sink); !errors.Is(err, fleet.ErrUnavailable) {
			t.Error(err)
		}
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("after %s", d)
		}
		s.End(errors.New("gone"))
		synctest.Wait()
		if sink.lost != nil {
			t.Error("the sink of a claim that failed was called")
		}
	})
}

func TestClaimOfNoConnectionReturns(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		if err := s.Claim(t.Context(), assignment, &recorder{}); !errors.Is(err, fleet.ErrUnavailable) {
			t.Error(err)
		}
	})
}

func TestClaimRejected(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		r := connect(t, p, hello(protocol.StateReady))
		go func() {
			r.next(nil)
			_ = r.pc.Send(protocol.TypeRejected, protocol.Rejected{TaskRef: protocol.TaskRef{Task: "t1", Fence: 7}, Why: "no"})
			r.ends()
		}()
		if err := s.Claim(t.Context(), assignment, &recorder{}); !errors.Is(err, fleet.ErrConflict) {
			t.Error(err)
		}
	})
}

func TestClaimTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		r := connect(t, p, hello(protocol.StateReady))
		go r.ends()
		a := assignment
		a.Prompt = strings.Repeat("x", protocol.MaxFromHost)
		if err := s.Claim(t.Context(), a, &recorder{}); !errors.Is(err, fleet.ErrInvalid) {
			t.Error(err)
		}
	})
}

// TestHostileRunners lets a runner that holds a task misbehave: its connection
// ends, no report is recorded, and an honest one may go on afterwards.
func TestHostileRunners(t *testing.T) {
	ref := protocol.TaskRef{Task: "t1", Fence: 7}
	log := func(offset int64, n int) func(*peer) {
		return func(r *peer) {
			_ = r.pc.SendLog(protocol.LogHeader{Offset: offset, Stream: 1}, make([]byte, n))
		}
	}
	send := func(typ protocol.Type, v any) func(*peer) {
		return func(r *peer) { _ = r.pc.Send(typ, v) }
	}
	raw := func(s string) func(*peer) { return func(r *peer) { _, _ = r.nc.Write([]byte(s)) } }
	blob := func(b protocol.Blob) func(*peer) { b.TaskRef = ref; return send(protocol.TypeBlob, b) }
	all := func(fs ...func(*peer)) func(*peer) {
		return func(r *peer) {
			for _, f := range fs {
				f(r)
			}
		}
	}
	part := func(file uint32, at int64, n int) func(*peer) {
		return func(r *peer) {
			_ = r.pc.SendPosition(protocol.TypeBlobPart, protocol.Position{Number: file, Value: at}, make([]byte, n))
		}
	}
	many := func(n int, f func(*peer)) func(*peer) {
		return func(r *peer) {
			for range n {
				f(r)
			}
		}
	}
	cases := map[string]func(*peer){
		"garbage":                raw("GET / HTTP/1.1\r\n\r\n"),
		"huge length":            raw("\x41\xff\xff\xff\xff"),
		"log backwards":          all(log(0, 10), log(5, 10)),
		"log with a gap":         log(100, 10),
		"log without end":        func(r *peer) { flood(r) },
		"empty log":              raw("\x40\x00\x00\x00\x11" + strings.Repeat("\x00", 16) + "\x01"),
		"unknown stream":         raw("\x40\x00\x00\x00\x12" + strings.Repeat("\x00", 16) + "\x09x"),
		"heartbeats":             many(5000, func(r *peer) { _ = r.pc.SendPosition(protocol.TypeHeartbeat, protocol.Position{}, nil) }),
		"phases":                 many(20, send(protocol.TypePhase, protocol.Phase{TaskRef: ref, State: fleet.TaskRunning})),
		"wrong phase":            send(protocol.TypePhase, protocol.Phase{TaskRef: ref, State: fleet.TaskSucceeded}),
		"phase of another":       send(protocol.TypePhase, protocol.Phase{TaskRef: protocol.TaskRef{Task: "t2", Fence: 7}, State: fleet.TaskRunning}),
		"report of another":      send(protocol.TypeReport, fleet.RunReport{Task: "t2", Fence: 7}),
		"report of a fence":      send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 8}),
		"unknown field":          send(protocol.TypeReport, map[string]any{"task": "t1", "fence": 7, "admin": true}),
		"huge report":            send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 7, Message: strings.Repeat("x", 1<<20)}),
		"artifact in the report": send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 7, Artifacts: []fleet.Artifact{{Path: "../x"}}}),
		"absolute artifact":      blob(protocol.Blob{File: 1, Path: "/etc/passwd", Size: 1}),
		"climbing artifact":      blob(protocol.Blob{File: 1, Path: "a/../../b", Size: 1}),
		"artifact with a NUL":    blob(protocol.Blob{File: 1, Path: "a\x00b", Size: 1}),
		"negative file":          blob(protocol.Blob{File: 1, Size: -1}),
		"huge file":              blob(protocol.Blob{File: 1, Path: "a", Size: 1 << 50}),
		"many files":             many(1100, blob(protocol.Blob{File: 1, Path: "a"})),
		"file longer than said":  all(blob(protocol.Blob{File: 1, Path: "a", Size: 3}), part(1, 0, 4)),
		"part of no file":        part(1, 0, 4),
		"part of another":        all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), part(2, 0, 4)),
		"parts out of order":     all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), part(1, 4, 4)),
		"log inside a file":      all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), log(0, 1)),
		"file inside a file":     all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), blob(protocol.Blob{File: 2, Path: "b", Size: 8})),
		"output of no exec":      func(r *peer) { _ = r.pc.SendExec(protocol.TypeExecOut, protocol.ExecHeader{ID: 9, Stream: 1}, []byte("x")) },
		"a host's message":       send(protocol.TypeWelcome, protocol.Welcome{}),
		"ready again":            send(protocol.TypeReady, protocol.Ready{}),
		"hello again":            send(protocol.TypeHello, hello(protocol.StateReady)),
		"silence":                func(*peer) {},
	}
	for name, attack := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
				sink := &recorder{}
				r := claimed(t, p, s, sink)
				drained := make(chan struct{})
				go func() { r.ends(); close(drained) }()
				attack(r)
				select {
				case <-drained:
				case <-time.After(2 * protocol.SilenceLimit):
					t.Fatal("the connection goes on")
				}
				_ = r.pc.Close()
				synctest.Wait()
				if len(sink.done) > 0 || sink.lost != nil {
					t.Errorf("%+v, %v", sink.done, sink.lost)
				}
				// The honest one is attached where the sink is.
				h := connect(t, p, hello(protocol.StateBusy))
				var a protocol.Attach
				if typ := h.next(&a); typ != protocol.TypeAttach || a.LogOffset != sink.LogOffset() {
					t.Errorf("%s %+v", typ, a)
				}
				if err := h.pc.Send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 7}); err != nil {
					t.Error(err)
				}
				if typ := h.next(nil); typ != protocol.TypeReportAck {
					t.Errorf("%s instead of reportAck", typ)
				}
				if len(sink.done) != 1 {
					t.Errorf("%d reports", len(sink.done))
				}
				_ = h.pc.Close()
			})
		})
	}
}

// flood sends log far beyond the limit of the task.
func flood(r *peer) {
	buf := make([]byte, protocol.MaxData)
	for off := int64(0); off < 1<<30; off += int64(len(buf)) {
		if r.pc.SendLog(protocol.LogHeader{Offset: off, Stream: 1}, buf) != nil {
			return
		}
	}
}

func TestSlowSinkBoundsMemory(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		sink := &recorder{block: make(chan struct{})}
		r := claimed(t, p, s, sink)
		go r.ends()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		sent := make(chan int64)
		go func() {
			var off int64
			_ = r.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
			for i := 0; ; i++ { // tiny frames of alternating streams: the dearest
				h := protocol.LogHeader{Offset: off, Stream: fleet.Stream(1 + i%2)}
				if r.pc.SendLog(h, []byte("0123456789")) != nil {
					sent <- off
					return
				}
				off += 10
			}
		}()
		n := <-sent
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
			t.Errorf("%d KiB held for %d bytes of log", grown>>10, n)
		}
		close(sink.block)
	})
}

func TestNewestConnectionWins(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		sink := &recorder{}
		old := claimed(t, p, s, sink)
		r := connect(t, p, hello(protocol.StateBusy))
		old.ends()
		var a protocol.Attach
		if typ := r.next(&a); typ != protocol.TypeAttach {
			t.Errorf("%s", typ)
		}
		_ = r.pc.Close()
	})
}

func TestEndWithoutAConnectionIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		sink := &recorder{}
		r := claimed(t, p, s, sink)
		_ = r.pc.Close()
		synctest.Wait()
		if sink.lost != nil {
			t.Error("a broken connection is not a dead sandbox")
		}
		gone := errors.New("killed")
		s.End(gone)
		synctest.Wait()
		if !errors.Is(sink.lost, gone) {
			t.Errorf("lost %v", sink.lost)
		}
		if err := s.Claim(t.Context(), assignment, sink); !errors.Is(err, fleet.ErrNotFound) {
			t.Error(err)
		}
		if err := s.Ready(t.Context()); err != nil && !errors.Is(err, fleet.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestCloseIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		sink := &recorder{}
		r := claimed(t, p, s, sink)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		r.ends()
		if sink.lost != nil || len(sink.done) > 0 {
			t.Errorf("%v %v", sink.lost, sink.done)
		}
		if err := s.Claim(t.Context(), assignment, sink); !errors.Is(err, fleet.ErrUnavailable) {
			t.Error(err)
		}
	})
}

func TestStopIsRepeatedAfterAReconnect(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		sink := &recorder{}
		r := claimed(t, p, s, sink)
		_ = r.pc.Close()
		synctest.Wait()
		res := make(chan error)
		go func() { res <- s.Stop(t.Context(), fleet.ReasonCancelled, time.Second) }()
		synctest.Wait()
		r = connect(t, p, hello(protocol.StateBusy))
		stops := 0
		for range 2 {
			var got struct {
				protocol.Stop
				LogOffset int64 `json:"logOffset"`
			}
			if r.next(&got) == protocol.TypeStop {
				stops++
				if got.Reason != fleet.ReasonCancelled || got.Grace != time.Second {
					t.Errorf("%+v", got)
				}
			}
		}
		if stops == 0 {
			t.Error("no stop")
		}
		go r.ends()
		if err := <-res; err != nil {
			t.Error(err)
		}
	})
}
