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

// A connection that breaks under the request: the claim repeats it on the next
// one, the runner obeys and is gone before Stop looks again.
func TestStopOfASandboxThatEndsMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
		sink := &recorder{}
		r := claimed(t, p, s, sink)
		_ = r.pc.Close()
		synctest.Wait()
		res := make(chan error, 1)
		go func() { res <- s.Stop(t.Context(), fleet.ReasonCancelled, time.Second) }()
		synctest.Wait()
		s.End(errors.New("the machine is gone"))
		if err := <-res; err != nil {
			t.Error(err)
		}
		if err := s.Stop(t.Context(), fleet.ReasonCancelled, time.Second); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("stop of what has ended: %v", err)
		}
	})
}
