package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

type execInput struct {
	TaskPath
	Upgrade string `header:"Upgrade" hidden:"true"`
}

func (s *Server) exec(ctx context.Context, in *execInput) (*huma.StreamResponse, error) {
	t, err := s.task(ctx, in.ID)
	switch {
	case err != nil:
		return nil, err
	case t.State.Final():
		return nil, refuse(http.StatusConflict, "task %s has ended (%s) and its sandbox is gone", t.ID, t.State)
	case !t.State.Active():
		return nil, refuse(http.StatusConflict, "task %s is %s and has no sandbox yet", t.ID, t.State)
	case !strings.EqualFold(in.Upgrade, "websocket"):
		return nil, refuse(http.StatusUpgradeRequired, "exec is a WebSocket with the subprotocol %s", v1alpha1.ExecProtocol)
	}
	ctx, done, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer done()
		r, w := humago.Unwrap(hc)
		// The request's deadlines would outlive it on the connection.
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{})
		_ = rc.SetWriteDeadline(time.Time{})
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{v1alpha1.ExecProtocol}})
		if err != nil {
			s.Logger.Debug("exec refused", "task", t.ID, "error", err) // Accept has answered
			return
		}
		defer func() { _ = conn.CloseNow() }()
		s.runExec(ctx, t.ID, conn)
	}}, nil
}

// runExec serves one command over an accepted WebSocket.
func (s *Server) runExec(ctx context.Context, id fleet.TaskID, conn *websocket.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := &execSession{conn: conn}
	start, err := x.start(ctx)
	if err != nil {
		x.finish(0, err)
		return
	}
	stdin, input := io.Pipe()
	resize := make(chan [2]uint16, 1)
	req := fleet.ExecRequest{
		Command: start.Command, Env: start.Env, TTY: start.TTY, Rows: start.Rows, Cols: start.Cols,
		Stdout: x.writer(ctx, v1alpha1.ExecStdout), Stderr: x.writer(ctx, v1alpha1.ExecStderr), Resize: resize,
	}
	if start.Stdin {
		req.Stdin = stdin
	} else {
		_ = input.Close()
	}
	var clients sync.WaitGroup
	clients.Go(func() {
		defer cancel() // the client went away: so does the command
		x.receive(ctx, input, resize)
	})
	clients.Go(func() { x.watch(ctx, s.beat, cancel) })
	code, err := s.Engine.Exec(ctx, id, req)
	_ = stdin.Close() // a reader of messages may wait to hand on input
	if ctx.Err() == nil {
		x.finish(code, err)
	}
	cancel()
	_ = conn.CloseNow()
	clients.Wait()
}

// execSession is the server's end of the protocol; see v1alpha1.ExecProtocol.
type execSession struct {
	conn *websocket.Conn
	mu   sync.Mutex // of writes, so that "exit" is the last
}

func (x *execSession) start(ctx context.Context) (v1alpha1.ExecMessage, error) {
	var m v1alpha1.ExecMessage
	if x.conn.Subprotocol() != v1alpha1.ExecProtocol {
		return m, fmt.Errorf("the WebSocket has not the subprotocol %s: %w", v1alpha1.ExecProtocol, fleet.ErrInvalid)
	}
	x.conn.SetReadLimit(v1alpha1.MaxExecStart)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	kind, b, err := x.conn.Read(ctx)
	if err != nil {
		return m, fmt.Errorf("read the start message: %w", err)
	}
	x.conn.SetReadLimit(v1alpha1.MaxExecMessage)
	if kind != websocket.MessageText || json.Unmarshal(b, &m) != nil || m.Type != v1alpha1.ExecTypeStart {
		return m, fmt.Errorf(`the first message is not {"type":"start",…}: %w`, fleet.ErrInvalid)
	}
	if len(m.Command) == 0 || m.Command[0] == "" {
		return m, &fleet.FieldError{Field: "command", Wrong: "is missing", Right: `a list such as ["sh", "-l"]`}
	}
	if bytes.ContainsRune(b, 0) || strings.Contains(string(b), `\u0000`) {
		return m, &fleet.FieldError{Field: "command", Wrong: "has a NUL byte", Right: "text without NUL bytes"}
	}
	return m, nil
}

// inputAhead is how many messages of input are taken before the command reads
// them, so that a new window size behind them gets through: 1 MiB at most.
const inputAhead = 16

// receive hands on what the client sends until the connection ends. Input
// that the command does not read holds the client back, not the server.
func (x *execSession) receive(ctx context.Context, input *io.PipeWriter, resize chan [2]uint16) {
	ahead := make(chan []byte, inputAhead)
	var pump sync.WaitGroup
	pump.Go(func() {
		defer func() { _ = input.Close() }()
		for b := range ahead {
			_, _ = input.Write(b) // nobody reads it any more: dropped
		}
	})
	open := true
	end := func() {
		if open {
			close(ahead)
			open = false
		}
	}
	defer pump.Wait()
	defer end()
	for {
		kind, b, err := x.conn.Read(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageBinary {
			if open && len(b) > 1 && b[0] == v1alpha1.ExecStdin {
				select {
				case ahead <- b[1:]:
				case <-ctx.Done():
					return
				}
			}
			continue
		}
		var m v1alpha1.ExecMessage
		if json.Unmarshal(b, &m) != nil {
			return
		}
		switch m.Type {
		case v1alpha1.ExecTypeStdinClose:
			end()
		case v1alpha1.ExecTypeResize:
			select { // the newest size is the one that counts
			case <-resize:
			default:
			}
			resize <- [2]uint16{m.Rows, m.Cols} // this goroutine alone fills it
		}
	}
}

// watch ends the command when the client is gone. receive sees that by itself,
// but not while it waits for the command to take input.
func (x *execSession) watch(ctx context.Context, every time.Duration, gone context.CancelFunc) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ping, cancel := context.WithTimeout(ctx, every)
		err := x.conn.Ping(ping)
		cancel()
		// An answer that does not come may wait behind input.
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			gone()
			return
		}
	}
}

// execWriter sends one stream's bytes; a client that takes none for long ends
// the command.
type execWriter struct {
	x      *execSession
	ctx    context.Context //nolint:containedctx // an io.Writer has no other way to it
	stream byte
}

func (x *execSession) writer(ctx context.Context, stream byte) io.Writer {
	return &execWriter{x, ctx, stream}
}

// execChunk keeps a message within what every client reads.
const execChunk = 32<<10 - 1

func (w *execWriter) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		part := b[:min(execChunk, len(b))]
		if err := w.x.send(w.ctx, websocket.MessageBinary, append([]byte{w.stream}, part...)); err != nil {
			return n, err
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}

func (x *execSession) send(ctx context.Context, kind websocket.MessageType, b []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stallTimeout)
	defer cancel()
	return x.conn.Write(ctx, kind, b)
}

// finish sends the last message and closes.
func (x *execSession) finish(code int, err error) {
	m := v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeExit, Code: &code}
	if err != nil {
		m = v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeError, Message: err.Error()}
		if errors.Is(err, fleet.ErrUnavailable) {
			m.Hint = "the task may have ended meanwhile"
		}
	}
	b, merr := json.Marshal(m)
	if merr != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stallTimeout)
	defer cancel()
	if x.send(ctx, websocket.MessageText, b) == nil {
		_ = x.conn.Close(websocket.StatusNormalClosure, "")
	}
}
