package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

const hostileID = "t0123456789abcdefghij"

// hostile is a server whose task chose its names to do harm.
func hostile(names []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := func(v any) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		}
		task := v1alpha1.TaskView{
			ID: hostileID, Name: "evil\x1b]0;owned\x07name", State: fleet.TaskFailed, Reason: fleet.ReasonExit,
			Message: "line\none\x1b[2J\u202e", Labels: map[string]string{"k": "v\x1b[8m"},
			Spec: v1alpha1.TaskSpec{Command: []string{"sh\x1b[1A"}},
		}
		for _, n := range names {
			task.Artifacts = append(task.Artifacts, fleet.Artifact{Path: n, Bytes: 4})
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/artifacts"):
			answer(v1alpha1.ArtifactList{Artifacts: task.Artifacts, Note: "note\x1b[5m"})
		case strings.Contains(r.URL.Path, "/artifacts/"):
			_, _ = w.Write([]byte("evil"))
		case strings.HasSuffix(r.URL.Path, "/explain"):
			e := fleet.Event{Seq: 1, Kind: "k\x1b[1m", Reason: "r\r\x1b[2K", Task: hostileID}
			answer(v1alpha1.ExplanationView{Summary: "s\x1b[2J", Task: &task, Event: &e, Steps: []fleet.Event{e}})
		case strings.HasSuffix(r.URL.Path, "/events"):
			answer(v1alpha1.EventList{Events: []fleet.Event{{Seq: 1, Kind: "k\x1b[1m", Reason: "r\r\x1b[2K"}}})
		case strings.HasSuffix(r.URL.Path, "/sandboxes"):
			answer(v1alpha1.SandboxList{Sandboxes: []v1alpha1.SandboxView{{ID: "s1", Message: "m\x1b[2J"}}})
		case strings.HasSuffix(r.URL.Path, "/schedules"):
			answer(v1alpha1.ScheduleList{Schedules: []v1alpha1.ScheduleView{{Name: "n\x1b[2J", LastError: "e\x9b"}}})
		case strings.HasSuffix(r.URL.Path, "/fleet"):
			answer(v1alpha1.FleetView{Name: "f\x1b[2J", Sentence: "s\x1b[2J", SignalsError: "e\x1b[2J",
				Pools: []v1alpha1.PoolView{{Pool: "p\x1b[2J", Reason: "r\x1b[2J", Breaker: v1alpha1.BreakerView{Open: true, Reason: "b\x1b[2J\n"}}}})
		case strings.HasSuffix(r.URL.Path, "/tasks"):
			answer(v1alpha1.TaskList{Tasks: []v1alpha1.TaskView{task}})
		case strings.HasSuffix(r.URL.Path, "/version"):
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTeapot)
			_ = json.NewEncoder(w).Encode(v1alpha1.Problem{Title: "t", Status: 418, Detail: "d\x1b[2J\nnext"})
		default:
			answer(task)
		}
	}
}

// drive runs one command line in this process.
func drive(t *testing.T, server string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	s := &shell{
		in: strings.NewReader(""), out: &out, errs: &errs, now: time.Now, uid: 1000,
		getenv: func(k string) string {
			return map[string]string{"MUSTER_SERVER": server, "MUSTER_HOME": t.TempDir()}[k]
		},
	}
	code = run(context.Background(), s, args)
	return out.String(), errs.String(), code
}

// Nothing that a task chose reaches the terminal as a control character.
func TestNamesCannotDriveTheTerminal(t *testing.T) {
	srv := httptest.NewServer(hostile([]string{"a\x1b[2Jb"}))
	t.Cleanup(srv.Close)
	for _, args := range [][]string{
		{"tasks"}, {"tasks", "-o", "wide"}, {"task", hostileID}, {"explain", hostileID}, {"events"}, {"sandboxes"}, {"sandboxes", "-o", "wide"},
		{"schedule", "list"}, {"fleet"}, {"artifacts", hostileID}, {"wait", hostileID}, {"cancel", hostileID}, {"patch", hostileID},
		{"version"}, {"__complete", "task", ""},
	} {
		out, errs, _ := drive(t, srv.URL, args...)
		if out+errs == "" {
			t.Errorf("%v printed nothing", args)
		}
		if args[0] == "patch" {
			continue // a patch goes raw to a pipe
		}
		for _, r := range out + errs {
			if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				t.Errorf("%v printed %U:\n%s%s", args, r, out, errs)
				break
			}
		}
	}
}

// No name leads out of the directory, be it by dots, from the root, or through
// a link that lies in it.
func TestArtifactsStayInside(t *testing.T) {
	names := []string{"fine/ok.txt", "../out.txt", "/abs.txt", "a/../../out.txt", "link/through.txt", "linkfile", "..", ".", "", "nul\x00.txt"}
	srv := httptest.NewServer(hostile(names))
	t.Cleanup(srv.Close)
	parent := t.TempDir()
	dir, outside := filepath.Join(parent, "dir"), filepath.Join(parent, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": outside, "linkfile": filepath.Join(outside, "kept")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	_, errs, code := drive(t, srv.URL, "artifacts", hostileID, dir)
	if code != exitFailed || strings.Count(errs, "refused") < 6 {
		t.Errorf("exit %d:\n%s", code, errs)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "fine", "ok.txt")); err != nil || string(b) != "evil" {
		t.Errorf("the sound one: %q %v", b, err)
	}
	if b, _ := os.ReadFile(filepath.Join(outside, "kept")); string(b) != "kept" {
		t.Errorf("written through a link: %q", b)
	}
	left, _ := os.ReadDir(parent)
	out, _ := os.ReadDir(outside)
	if len(left) != 2 || len(out) != 1 {
		t.Errorf("left outside: %v %v", left, out)
	}
}
