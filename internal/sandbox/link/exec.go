package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// exec is one command beside the task. Both directions have a window counted
// in bytes and a price per frame, so that tiny frames cannot pile up.
type exec struct {
	id     uint32
	wake   chan struct{} // has room for one
	mu     sync.Mutex
	out    []execChunk
	unread int // cost of out and of what was not acknowledged yet
	exit   *protocol.ExecExit
	sent   int64 // cost of stdin sent
	taken  int64 // and acknowledged
	credit chan struct{}
}

type execChunk struct {
	stream fleet.Stream
	data   []byte
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Exec runs a command beside the task, or in a waiting sandbox, and returns
// its exit code (128+n after signal n). When ctx ends the command is killed.
// r.Stdin is read until its end or until the command ends; a Read blocked
// then returns to nobody, so close it. ErrUnavailable when the connection is
// lost, ErrFull with too many at once.
func (s *Session) Exec(ctx context.Context, r fleet.ExecRequest) (int, error) {
	if len(r.Command) == 0 {
		return -1, &fleet.FieldError{Field: "command", Wrong: "it is empty", Right: "a program and its arguments"}
	}
	cn, err := s.execConn(ctx)
	if err != nil {
		return -1, fmt.Errorf("exec: %w", err)
	}
	e, err := cn.openExec()
	if err != nil {
		return -1, fmt.Errorf("exec: %w", err)
	}
	defer cn.closeExec(e)
	err = cn.pc.Send(protocol.TypeExec, protocol.Exec{
		ID: e.id, Command: r.Command, Env: r.Env, TTY: r.TTY, Rows: r.Rows, Cols: r.Cols, Stdin: r.Stdin != nil,
	})
	if err != nil {
		return -1, fmt.Errorf("exec: %w: %w", fleet.ErrUnavailable, err)
	}
	done := make(chan struct{})
	defer close(done)
	if r.Stdin != nil {
		go cn.sendStdin(e, r.Stdin, done)
	}
	return cn.runExec(ctx, e, r)
}

func (s *Session) execConn(ctx context.Context) (*conn, error) {
	ctx, stop := context.WithTimeout(ctx, acceptTimeout)
	defer stop()
	var cn *conn
	var result error
	err := s.await(ctx, func() bool {
		switch {
		case s.ended:
			result = s.endError()
		case s.state == protocol.StateDone, s.claim != nil && s.claim.done:
			result = fmt.Errorf("%w: the task has ended", fleet.ErrConflict)
		case s.conn == nil, s.state != protocol.StateReady && s.state != protocol.StateBusy:
			return false
		default:
			cn = s.conn
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("%w: the runner is not ready: %w", fleet.ErrUnavailable, err)
	}
	return cn, result
}

func (cn *conn) openExec() (*exec, error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if len(cn.execs) >= protocol.MaxExecs {
		return nil, fmt.Errorf("%w: %d commands run beside the task already", fleet.ErrFull, len(cn.execs))
	}
	cn.lastID++
	e := &exec{id: cn.lastID, wake: make(chan struct{}, 1), credit: make(chan struct{}, 1)}
	cn.execs[e.id] = e
	return e, nil
}

func (cn *conn) closeExec(e *exec) {
	cn.mu.Lock()
	delete(cn.execs, e.id)
	cn.mu.Unlock()
}

// runExec copies output until the command has ended.
func (cn *conn) runExec(ctx context.Context, e *exec, r fleet.ExecRequest) (int, error) {
	resize := r.Resize
	var consumed int64
	for {
		chunks, exit := e.take()
		for _, c := range chunks {
			w := r.Stdout
			if c.stream == fleet.StreamStderr && r.Stderr != nil {
				w = r.Stderr
			}
			if _, err := w.Write(c.data); err != nil {
				_ = cn.pc.Send(protocol.TypeExecControl, protocol.ExecControl{ID: e.id, Kill: true})
				return -1, fmt.Errorf("exec: write output: %w", err)
			}
			cost := protocol.ExecCost(len(c.data))
			consumed += int64(cost)
			e.settle(cost)
			_ = cn.pc.SendPosition(protocol.TypeExecAck, protocol.Position{Number: e.id, Value: consumed}, nil)
		}
		if len(chunks) > 0 {
			continue
		}
		if exit != nil {
			return execResult(exit)
		}
		select {
		case <-e.wake:
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			_ = cn.pc.Send(protocol.TypeExecControl, protocol.ExecControl{ID: e.id, Rows: size[0], Cols: size[1]})
		case <-ctx.Done():
			_ = cn.pc.Send(protocol.TypeExecControl, protocol.ExecControl{ID: e.id, Kill: true})
			return -1, fmt.Errorf("exec: %w", ctx.Err())
		case <-cn.gone:
			if _, exit := e.peek(); exit {
				continue // it ended before the connection did
			}
			return -1, fmt.Errorf("exec: %w: the connection to the sandbox broke", fleet.ErrUnavailable)
		}
	}
}

func execResult(x *protocol.ExecExit) (int, error) {
	if x.Error != "" {
		return x.Code, fmt.Errorf("exec: %s", cut(x.Error, 2<<10))
	}
	return x.Code, nil
}

func (e *exec) take() ([]execChunk, *protocol.ExecExit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.out
	e.out = nil
	return out, e.exit
}

func (e *exec) peek() (output, exit bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.out) > 0, e.exit != nil
}

func (e *exec) settle(cost int) {
	e.mu.Lock()
	e.unread -= cost
	e.mu.Unlock()
}

// sendStdin copies input within the window.
func (cn *conn) sendStdin(e *exec, r io.Reader, done <-chan struct{}) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && !cn.spendStdin(e, protocol.ExecCost(n), done) {
			return
		}
		if n > 0 {
			h := protocol.ExecHeader{ID: e.id, Stream: fleet.StreamStdout}
			if cn.pc.SendExec(protocol.TypeExecIn, h, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				cn.s.log.Debug("exec stdin", "err", err)
			}
			_ = cn.pc.Send(protocol.TypeExecControl, protocol.ExecControl{ID: e.id, EOF: true})
			return
		}
	}
}

// spendStdin waits for the window to have room for cost.
func (cn *conn) spendStdin(e *exec, cost int, done <-chan struct{}) bool {
	for {
		e.mu.Lock()
		ok := e.sent+int64(cost)-e.taken <= protocol.ExecWindow
		if ok {
			e.sent += int64(cost)
		}
		e.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-e.credit:
		case <-done:
			return false
		case <-cn.gone:
			return false
		}
	}
}

// execOf finds an exec; nil for one that has ended here, a violation for one
// that never was.
func (cn *conn) execOf(t protocol.Type, id uint32) (*exec, error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if id == 0 || id > cn.lastID {
		return nil, protocol.Violation("%s of unknown exec %d", t, id)
	}
	return cn.execs[id], nil
}

func (cn *conn) onExecOut(payload []byte) error {
	h, data, err := protocol.ParseExec(protocol.TypeExecOut, payload)
	if err != nil {
		return err
	}
	e, err := cn.execOf(protocol.TypeExecOut, h.ID)
	if err != nil {
		return err
	}
	if e == nil {
		return cn.spend(protocol.TypeExecOut)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unread += protocol.ExecCost(len(data)); e.unread > protocol.ExecWindow {
		return protocol.Violation("exec output beyond the window")
	}
	e.out = append(e.out, execChunk{h.Stream, append([]byte(nil), data...)})
	signal(e.wake)
	return nil
}

func (cn *conn) onExecExit(payload []byte) error {
	var x protocol.ExecExit
	if err := protocol.Decode(protocol.TypeExecExit, payload, &x); err != nil {
		return err
	}
	e, err := cn.execOf(protocol.TypeExecExit, x.ID)
	if err != nil || e == nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit == nil {
		e.exit = &x
	}
	signal(e.wake)
	return nil
}

func (cn *conn) onExecAck(payload []byte) error {
	p, _, err := protocol.ParsePosition(protocol.TypeExecAck, payload)
	if err != nil {
		return err
	}
	e, err := cn.execOf(protocol.TypeExecAck, p.Number)
	if err != nil || e == nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.Value < e.taken || p.Value > e.sent {
		return protocol.Violation("exec acknowledged up to %d of %d", p.Value, e.sent)
	}
	e.taken = p.Value
	signal(e.credit)
	return nil
}
