package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/coder/websocket"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// execChunk is how much input goes into one message; with its stream byte
// that is the WebSocket library's own default bound.
const execChunk = 32<<10 - 1

// Exec runs a command beside the task and returns its exit code. r.Stdin is
// read until its end or until the command ends; a read that blocks then is
// left behind, as standard input cannot be interrupted.
func (c *Client) Exec(ctx context.Context, id fleet.TaskID, r fleet.ExecRequest) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.dial(ctx, path(v1alpha1.RouteTaskExec, string(id)))
	if err != nil {
		return -1, err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(v1alpha1.MaxExecMessage)
	start := v1alpha1.ExecMessage{
		Type: v1alpha1.ExecTypeStart, Command: r.Command, Env: r.Env, TTY: r.TTY, Rows: r.Rows, Cols: r.Cols, Stdin: r.Stdin != nil,
	}
	if err := writeJSON(ctx, conn, start); err != nil {
		return -1, c.connectError(err)
	}
	if r.Stdin != nil {
		go sendInput(ctx, conn, r.Stdin)
	}
	if r.Resize != nil {
		go sendSizes(ctx, conn, r.Resize)
	}
	end, err := c.receive(ctx, conn, r)
	if err != nil {
		return -1, err
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	if end.Code == nil {
		return -1, &Error{Text: end.Message, Hint: end.Hint}
	}
	return *end.Code, nil
}

func (c *Client) dial(ctx context.Context, path string) (*websocket.Conn, error) {
	header := http.Header{}
	c.authorize(header)
	//nolint:bodyclose // the library says that this body needs no closing
	conn, resp, err := websocket.Dial(ctx, c.base().String()+path, &websocket.DialOptions{
		HTTPClient: c.http, HTTPHeader: header, Subprotocols: []string{v1alpha1.ExecProtocol},
	})
	if err == nil {
		return conn, nil
	}
	if resp == nil {
		return nil, c.connectError(err)
	}
	if resp.StatusCode < 300 {
		return nil, c.strangerError("no WebSocket: " + err.Error())
	}
	return nil, c.answerError(resp)
}

// receive writes output until the last message.
func (c *Client) receive(ctx context.Context, conn *websocket.Conn, r fleet.ExecRequest) (v1alpha1.ExecMessage, error) {
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return v1alpha1.ExecMessage{}, context.Cause(ctx)
			}
			var closed websocket.CloseError
			if errors.As(err, &closed) && closed.Reason != "" {
				return v1alpha1.ExecMessage{}, &Error{Text: "the command was cut off: " + closed.Reason, Cause: err}
			}
			return v1alpha1.ExecMessage{}, &Error{
				Text: "the connection was lost and the command with it", Cause: err, Kind: ErrLost,
				Hint: "the task itself goes on; run exec again",
			}
		}
		if kind == websocket.MessageText {
			var end v1alpha1.ExecMessage
			if err := json.Unmarshal(b, &end); err != nil {
				return end, fmt.Errorf("read the end of the command: %w", err)
			}
			return end, nil
		}
		if err := output(r, b); err != nil {
			return v1alpha1.ExecMessage{}, fmt.Errorf("write output: %w", err)
		}
	}
}

func output(r fleet.ExecRequest, b []byte) error {
	if len(b) < 1 {
		return nil
	}
	w := r.Stdout
	if b[0] == v1alpha1.ExecStderr && r.Stderr != nil {
		w = r.Stderr
	}
	_, err := w.Write(b[1:])
	return err
}

func writeJSON(ctx context.Context, conn *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, b)
}

// sendInput sends input until its end. Its errors show in receive.
func sendInput(ctx context.Context, conn *websocket.Conn, r io.Reader) {
	buf := make([]byte, 1+execChunk)
	buf[0] = v1alpha1.ExecStdin
	for {
		n, err := r.Read(buf[1:])
		if n > 0 && conn.Write(ctx, websocket.MessageBinary, buf[:1+n]) != nil {
			return
		}
		if err != nil {
			_ = writeJSON(ctx, conn, v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeStdinClose})
			return
		}
	}
}

func sendSizes(ctx context.Context, conn *websocket.Conn, sizes <-chan [2]uint16) {
	for {
		select {
		case s, ok := <-sizes:
			if !ok || writeJSON(ctx, conn, v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeResize, Rows: s[0], Cols: s[1]}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
