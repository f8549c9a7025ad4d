package link

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// maxHandshakes bounds connections that have not shown the token yet.
const maxHandshakes = 4

func (s *Session) accept() {
	slots := make(chan struct{}, maxHandshakes)
	for {
		nc, err := s.l.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Warn("accept runner", "err", err)
			if !s.sleep(100 * time.Millisecond) {
				return
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = nc.Close()
			continue
		}
		s.wg.Go(func() {
			cn, err := s.handshake(nc)
			<-slots
			if err != nil {
				s.log.Warn("runner refused", "err", err)
				_ = nc.Close()
				return
			}
			s.serve(cn)
		})
	}
}

// sleep waits; false when the session was closed.
func (s *Session) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// handshake checks who connects, within HandshakeTimeout, and welcomes it.
func (s *Session) handshake(nc net.Conn) (*conn, error) {
	stop := context.AfterFunc(s.ctx, func() { _ = nc.Close() })
	defer stop()
	pc := protocol.NewConn(nc, protocol.Limits{
		ReadTimeout:  protocol.HandshakeTimeout,
		WriteTimeout: protocol.HandshakeTimeout,
	})
	t, payload, err := pc.Receive()
	if err != nil {
		return nil, fmt.Errorf("receive hello: %w", err)
	}
	received := time.Now()
	hello, err := s.checkHello(t, payload)
	if err != nil {
		_ = pc.Send(protocol.TypeRefuse, protocol.Refuse{Why: err.Error()})
		return nil, err
	}
	s.mu.Lock()
	pause := time.Until(s.pauseTo)
	s.mu.Unlock()
	if pause > 0 && !s.sleep(pause) {
		return nil, net.ErrClosed
	}
	w := protocol.Welcome{Version: protocol.Version}
	if hello.State == protocol.StateNew {
		w.Prepare, w.Env, w.Startup = s.o.Prepare, s.o.Env, s.o.Startup
	}
	if err := pc.Send(protocol.TypeWelcome, w); err != nil {
		return nil, fmt.Errorf("send welcome: %w", err)
	}
	pc.SetLimits(protocol.Limits{
		ReadTimeout:  protocol.SilenceLimit,
		WriteTimeout: protocol.WriteTimeout,
		MaxMessage:   protocol.MaxFromRunner,
	})
	cn := &conn{s: s, pc: pc, hello: hello, gone: make(chan struct{}), execs: map[uint32]*exec{}}
	cn.clock.observe(received, hello.Now)
	return cn, nil
}

func (s *Session) checkHello(t protocol.Type, payload []byte) (protocol.Hello, error) {
	var h protocol.Hello
	if t != protocol.TypeHello {
		return h, protocol.Violation("%s before hello", t)
	}
	if err := protocol.DecodeLoose(t, payload, &h); err != nil {
		return h, err
	}
	if h.Magic != protocol.Magic {
		return h, protocol.Violation("hello of something that is not a runner")
	}
	if s.o.Token == "" || subtle.ConstantTimeCompare([]byte(h.Token), []byte(s.o.Token)) != 1 {
		return h, protocol.Violation("hello with a wrong token")
	}
	h.Token = "" // not to be logged
	if h.Version < protocol.MinVersion || h.Version > protocol.Version {
		return h, protocol.Violation("runner speaks version %d, this control plane %d to %d; destroy the sandbox",
			h.Version, protocol.MinVersion, protocol.Version)
	}
	holds := h.State == protocol.StateBusy || h.State == protocol.StateDone
	switch h.State {
	case protocol.StateNew, protocol.StatePreparing, protocol.StateReady, protocol.StateFailed:
	case protocol.StateBusy, protocol.StateDone:
	default:
		return h, protocol.Violation("runner in unknown state %q", h.State)
	}
	if holds != (h.Task != "") || len(h.Task) > 64 || h.LogFrom < 0 {
		return h, protocol.Violation("runner is %s and holds task %.64q", h.State, h.Task)
	}
	return h, nil
}

// install makes cn the session's connection; the one before is closed.
func (s *Session) install(cn *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	if s.ended {
		return errEnded
	}
	held := protocol.TaskRef{Task: cn.hello.Task, Fence: cn.hello.Fence}
	if c := s.claim; c != nil && held.Task != "" && held != c.ref {
		s.punish()
		return protocol.Violation("the runner holds %s/%d, not %s/%d", held.Task, held.Fence, c.ref.Task, c.ref.Fence)
	}
	if c := s.claim; c != nil && held.Task == "" && c.accepted {
		s.punish()
		return fmt.Errorf("%w: the runner lost the task it had accepted", protocol.ErrProtocol)
	}
	if c := s.claim; c != nil && held == c.ref && !c.accepted && c.rejected == nil {
		// Its answer was lost with the connection before.
		c.accepted = true
		close(c.answered)
	}
	if s.conn != nil {
		s.conn.close(errReplaced)
	}
	s.conn, s.hello, s.state = cn, cn.hello, cn.hello.State
	s.notify()
	return nil
}

var errReplaced = fmt.Errorf("%w: the runner connected again", fleet.ErrUnavailable)
