package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a running `muster up`.
type server struct {
	cmd   *exec.Cmd
	data  string
	base  string
	token string
	log   bytes.Buffer
	http  http.Client
}

func (b *bench) start(ctx context.Context, name string, warm, most int) (*server, error) {
	f, err := b.fleetFile(warm, most)
	if err != nil {
		return nil, err
	}
	return b.startFleet(ctx, name, f)
}

// startFleet runs `muster up` with the fleet in a file.
func (b *bench) startFleet(ctx context.Context, name, f string) (*server, error) {
	s := &server{data: filepath.Join(b.dir, name)}
	s.cmd = exec.Command(b.muster, "up", "--data", s.data, "--fleet", f, "--listen", "127.0.0.1:0", "--runner", b.runner, "--log-level", "warn")
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 3000 {
		addr, err1 := os.ReadFile(filepath.Join(s.data, "address"))
		tok, err2 := os.ReadFile(filepath.Join(s.data, "token"))
		if err1 == nil && err2 == nil {
			s.base, s.token = strings.TrimSpace(string(addr)), strings.TrimSpace(string(tok))
			if err := s.call(ctx, "GET", "/readyz", nil, nil); err == nil {
				return s, nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.stop(b)
	return nil, fmt.Errorf("muster up is not ready after 30 s: %s", s.log.String())
}

func (s *server) stop(b *bench) {
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	_ = s.cmd.Wait()
	if out, err := exec.Command(b.muster, "down", "--data", s.data).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "muster down: %v: %s\n", err, out)
	}
}

func (s *server) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Accept", "*/*")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	r, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, r.Status, raw)
	}
	if p, ok := out.(*[]byte); ok {
		*p = raw
		return nil
	}
	if out == nil {
		return nil
	}
	return decode(raw, out)
}

type task struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// submit submits n tasks in one request and returns their ids and the time
// just before the request.
func (s *server) submit(ctx context.Context, n int, command ...string) ([]string, time.Time, error) {
	spec := map[string]any{"command": command}
	var specs []any
	for range n {
		specs = append(specs, spec)
	}
	var got struct{ Tasks []task }
	t0 := time.Now()
	if err := s.call(ctx, "POST", "/v1/tasks", map[string]any{"tasks": specs}, &got); err != nil {
		return nil, t0, err
	}
	var ids []string
	for _, t := range got.Tasks {
		ids = append(ids, t.ID)
	}
	return ids, t0, nil
}

// firstInstruction waits for a task and returns the clock its command printed.
func (s *server) firstInstruction(ctx context.Context, id string) (time.Time, error) {
	var t task
	for range 20 {
		if err := s.call(ctx, "GET", "/v1/tasks/"+id+"/wait?timeout=30s", nil, &t); err != nil {
			return time.Time{}, err
		}
		if t.State == "succeeded" {
			break
		}
	}
	if t.State != "succeeded" {
		return time.Time{}, fmt.Errorf("task %s is %s", id, t.State)
	}
	var raw []byte
	req := "/v1/tasks/" + id + "/log"
	if err := s.callText(ctx, req, &raw); err != nil {
		return time.Time{}, err
	}
	return parseClock(string(raw))
}

func (s *server) callText(ctx context.Context, path string, out *[]byte) error {
	req, err := http.NewRequestWithContext(ctx, "GET", s.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Accept", "text/plain")
	r, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	*out = b
	return err
}

// ready waits until n sandboxes are ready.
func (s *server) ready(ctx context.Context, n int) error {
	for range 6000 {
		var v struct {
			Pools []struct {
				Ready int `json:"ready"`
			} `json:"pools"`
		}
		if err := s.call(ctx, "GET", "/v1/fleet", nil, &v); err != nil {
			return err
		}
		sum := 0
		for _, p := range v.Pools {
			sum += p.Ready
		}
		if sum >= n {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%d sandboxes are not ready after a minute", n)
}
