package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

// running submits a task and starts it.
func (r *rig) running() fleet.TaskID {
	r.t.Helper()
	id := r.submit(echo())[0].ID
	r.start()
	return id
}

func (r *rig) dial(id fleet.TaskID, protocols ...string) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, r.url+"/v1/tasks/"+string(id)+"/exec", &websocket.DialOptions{
		HTTPClient: r.client, HTTPHeader: http.Header{"Authorization": {"Bearer " + testToken}}, Subprotocols: protocols,
	})
	if conn != nil {
		r.t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, resp, err
}

// TestExecWithClient: our own client and this server speak the same protocol.
func TestExecWithClient(t *testing.T) {
	r := newRig(t)
	id := r.running()
	sizes := make(chan [2]uint16, 1)
	r.engine.exec = func(ctx context.Context, got fleet.TaskID, q fleet.ExecRequest) (int, error) {
		if got != id || q.Command[0] != "cat" || q.Env["K"] != "V" || !q.TTY || q.Rows != 24 || q.Cols != 80 {
			return 0, fmt.Errorf("asked for %+v", q)
		}
		select {
		case s := <-q.Resize:
			sizes <- s
		case <-ctx.Done():
		}
		_, _ = fmt.Fprint(q.Stderr, "warning\n")
		n, err := io.Copy(q.Stdout, q.Stdin)
		if err != nil {
			return 0, err
		}
		return int(n % 256), nil
	}
	c, err := client.New(client.Options{Server: r.url, Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var stdout, stderr strings.Builder
	resize := make(chan [2]uint16, 1)
	resize <- [2]uint16{40, 120}
	input := strings.Repeat("0123456789", 30_000) // several messages
	code, err := c.Exec(context.Background(), id, fleet.ExecRequest{
		Command: []string{"cat"}, Env: map[string]string{"K": "V"}, TTY: true, Rows: 24, Cols: 80,
		Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr, Resize: resize,
	})
	if err != nil || code != len(input)%256 || stdout.String() != input || stderr.String() != "warning\n" {
		t.Errorf("code %d, %d bytes, %q, %v", code, stdout.Len(), stderr.String(), err)
	}
	if s := <-sizes; s != [2]uint16{40, 120} {
		t.Errorf("resized to %v", s)
	}
}

func TestExecErrors(t *testing.T) {
	r := newRig(t)
	queued := r.submit(echo())[0].ID
	r.problem(r.request("GET", "/v1/tasks/"+string(queued)+"/exec", nil), 409)
	r.start()
	id := queued
	r.problem(r.request("GET", "/v1/tasks/"+string(id)+"/exec", nil), 426)
	r.engine.exec = func(context.Context, fleet.TaskID, fleet.ExecRequest) (int, error) {
		return 0, fmt.Errorf("no such program: %w", fleet.ErrInvalid)
	}
	say := func(protocol string, kind websocket.MessageType, text string) v1alpha1.ExecMessage {
		t.Helper()
		var protocols []string
		if protocol != "" {
			protocols = []string{protocol}
		}
		conn, _, err := r.dial(id, protocols...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if text != "" {
			if err := conn.Write(ctx, kind, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		var m v1alpha1.ExecMessage
		if _, b, err := conn.Read(ctx); err != nil || json.Unmarshal(b, &m) != nil {
			t.Fatalf("%s %v", b, err)
		}
		return m
	}
	for _, c := range []struct {
		protocol string
		kind     websocket.MessageType
		text     string
		want     string
	}{
		{v1alpha1.ExecProtocol, websocket.MessageText, `{"type":"start","command":["x"]}`, "no such program"},
		{v1alpha1.ExecProtocol, websocket.MessageText, `{"type":"start"}`, "command"},
		{v1alpha1.ExecProtocol, websocket.MessageText, `{"type":"start","command":["a\u0000"]}`, "NUL"},
		{v1alpha1.ExecProtocol, websocket.MessageText, `hello`, "first message"},
		{v1alpha1.ExecProtocol, websocket.MessageBinary, "\x00abc", "first message"},
		{"", websocket.MessageText, "", "subprotocol"},
	} {
		if m := say(c.protocol, c.kind, c.text); m.Type != v1alpha1.ExecTypeError || !strings.Contains(m.Message, c.want) {
			t.Errorf("%q: %+v", c.text, m)
		}
	}
}

// TestExecClientGone: a client that vanishes takes its command with it.
func TestExecClientGone(t *testing.T) {
	r := newRig(t)
	id := r.running()
	started, ended := make(chan struct{}), make(chan error, 1)
	r.engine.exec = func(ctx context.Context, _ fleet.TaskID, q fleet.ExecRequest) (int, error) {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return -1, ctx.Err()
	}
	conn, _, err := r.dial(id, v1alpha1.ExecProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(context.Background(), websocket.MessageText, []byte(`{"type":"start","command":["sleep"],"stdin":true}`)); err != nil {
		t.Fatal(err)
	}
	<-started
	_ = conn.CloseNow()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the command goes on")
	}
}

// TestExecHostileClient: too large a message ends the session; a flood of
// input that the command does not read holds the flooder back, and does not
// grow the server.
func TestExecHostileClient(t *testing.T) {
	r := newRig(t)
	id := r.running()
	release := make(chan struct{})
	var once sync.Once
	r.engine.exec = func(ctx context.Context, _ fleet.TaskID, q fleet.ExecRequest) (int, error) {
		select { // reads no input
		case <-ctx.Done():
		case <-release:
		}
		return 0, nil
	}
	defer once.Do(func() { close(release) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, _, err := r.dial(id, v1alpha1.ExecProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"type":"start","command":["sleep"],"stdin":true}`)); err != nil {
		t.Fatal(err)
	}
	flood, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	sent := 0
	for flood.Err() == nil {
		if err := conn.Write(flood, websocket.MessageBinary, make([]byte, 32<<10)); err != nil {
			break
		}
		sent += 32 << 10
	}
	if sent > 64<<20 {
		t.Errorf("the server took %d MiB of input nobody reads", sent>>20)
	}
	conn2, _, err := r.dial(id, v1alpha1.ExecProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn2.Write(ctx, websocket.MessageText, []byte(`{"type":"start","command":["sleep"],"stdin":true}`)); err != nil {
		t.Fatal(err)
	}
	_ = conn2.Write(ctx, websocket.MessageBinary, make([]byte, v1alpha1.MaxExecMessage+1))
	if _, _, err := conn2.Read(ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("after too large a message: %v", err)
	}
}

// TestExecClientGoneBehindInput: so does one that vanishes with input under
// way that the command does not take.
func TestExecClientGoneBehindInput(t *testing.T) {
	r := newRig(t)
	r.server.beat = 20 * time.Millisecond
	id := r.running()
	ended := make(chan struct{})
	r.engine.exec = func(ctx context.Context, _ fleet.TaskID, _ fleet.ExecRequest) (int, error) {
		<-ctx.Done() // reads no input
		close(ended)
		return -1, ctx.Err()
	}
	conn, _, err := r.dial(id, v1alpha1.ExecProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(context.Background(), websocket.MessageText, []byte(`{"type":"start","command":["sleep"],"stdin":true}`)); err != nil {
		t.Fatal(err)
	}
	for range inputAhead + 4 { // more than the server takes ahead, less than the sockets hold
		if err := conn.Write(context.Background(), websocket.MessageBinary, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // for the server to be stuck
	_ = conn.CloseNow()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the command goes on")
	}
}
