package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// execServer plays the server's part of exec: it echoes standard input in
// capitals and reports what it was asked.
func execServer(t *testing.T, end v1alpha1.ExecMessage) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{v1alpha1.ExecProtocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = ws.CloseNow() }()
		ctx := r.Context()
		if ws.Subprotocol() != v1alpha1.ExecProtocol {
			t.Errorf("subprotocol %q", ws.Subprotocol())
		}
		_, b, err := ws.Read(ctx)
		if err != nil {
			return
		}
		_ = ws.Write(ctx, websocket.MessageBinary, append([]byte{v1alpha1.ExecStderr}, b...))
		for {
			kind, b, err := ws.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageText {
				var m v1alpha1.ExecMessage
				_ = json.Unmarshal(b, &m)
				if m.Type == v1alpha1.ExecTypeStdinClose {
					break
				}
				_ = ws.Write(ctx, websocket.MessageBinary, append([]byte{v1alpha1.ExecStderr}, b...))
				continue
			}
			_ = ws.Write(ctx, websocket.MessageBinary, append([]byte{v1alpha1.ExecStdout}, bytes.ToUpper(b[1:])...))
		}
		if end.Type == "" {
			return // the connection just breaks
		}
		_ = writeJSON(ctx, ws, end)
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
}

func TestExec(t *testing.T) {
	code := 9
	c, _ := serve(t, execServer(t, v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeExit, Code: &code}))
	input := strings.Repeat("abc", 50_000) // more than one message
	var out, errs bytes.Buffer
	got, err := c.Exec(context.Background(), taskID, fleet.ExecRequest{
		Command: []string{"cat"}, Stdin: strings.NewReader(input), Stdout: &out, Stderr: &errs,
	})
	if err != nil || got != 9 || out.String() != strings.ToUpper(input) {
		t.Errorf("exit %d, %v, %d bytes", got, err, out.Len())
	}
	if want := `{"type":"start","command":["cat"],"stdin":true}`; errs.String() != want {
		t.Errorf("asked %s, want %s", errs.String(), want)
	}
}

func TestExecErrors(t *testing.T) {
	in := func() io.Reader { return strings.NewReader("") }
	c, _ := serve(t, execServer(t, v1alpha1.ExecMessage{Type: v1alpha1.ExecTypeError, Message: "no such command", Hint: "try sh"}))
	_, err := c.Exec(context.Background(), taskID, fleet.ExecRequest{Stdin: in(), Stdout: io.Discard, Stderr: io.Discard})
	var e *Error
	if !errors.As(err, &e) || e.Text != "no such command" || e.Hint != "try sh" {
		t.Errorf("got %v", err)
	}
	c, _ = serve(t, execServer(t, v1alpha1.ExecMessage{}))
	if _, err = c.Exec(context.Background(), taskID, fleet.ExecRequest{Stdin: in(), Stdout: io.Discard, Stderr: io.Discard}); !errors.Is(err, ErrLost) {
		t.Errorf("a broken connection: %v", err)
	}
	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		problem(w, v1alpha1.Problem{Title: "Conflict", Status: 409, Detail: "the task is not running"})
	})
	if _, err = c.Exec(context.Background(), taskID, fleet.ExecRequest{}); err == nil || err.Error() != "the task is not running" {
		t.Errorf("refused: %v", err)
	}
}
