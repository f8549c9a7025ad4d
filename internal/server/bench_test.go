package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func submission(b *testing.B) []byte {
	b.Helper()
	raw, err := json.Marshal(v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{{
		Name: "bench", Labels: map[string]string{"team": "payments"}, Command: []string{"claude", "-p", "fix it"},
		Repo: &v1alpha1.Repo{URL: "https://example.com/web.git", Ref: "main"}, Env: map[string]string{"A": "1", "B": "2"},
		Resources: &v1alpha1.Resources{Memory: "1Gi"}, Artifacts: []string{"out/**"}, Prompt: "please",
	}}})
	if err != nil {
		b.Fatal(err)
	}
	return raw
}

// accepting is a store that takes no time.
type accepting struct{ fleet.Store }

func (accepting) Submit(_ context.Context, tasks []fleet.Task) ([]fleet.Task, error) {
	return tasks, nil
}

// BenchmarkSubmit is what the API adds to a submission: the store takes
// no time and there is no network.
func BenchmarkSubmit(b *testing.B) {
	r := newRig(b, func(c *Config) { c.Store = accepting{c.Store} })
	raw := submission(b)
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequest("POST", "/v1/tasks", bytes.NewReader(raw))
		req.Header.Set("Authorization", "Bearer "+testToken)
		req.Host = "localhost"
		w := httptest.NewRecorder()
		if r.server.ServeHTTP(w, req); w.Code != 201 {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkSubmitLoopback is the same over a kept connection.
func BenchmarkSubmitLoopback(b *testing.B) {
	r := newRig(b, func(c *Config) { c.Store = accepting{c.Store} })
	raw := submission(b)
	for b.Loop() {
		req, err := http.NewRequest("POST", r.url+"/v1/tasks", bytes.NewReader(raw))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testToken)
		resp, err := r.client.Do(req)
		if err != nil || resp.StatusCode != 201 {
			b.Fatal(err, resp.Status)
		}
		_, _ = bytes.NewBuffer(nil).ReadFrom(resp.Body)
		_ = resp.Body.Close()
	}
}

// BenchmarkView is a task as the API shows it.
func BenchmarkView(b *testing.B) {
	t := fleet.Task{ID: fleet.NewTaskID(time.Now()), State: fleet.TaskSucceeded, Spec: fleet.TaskSpec{Command: []string{"x"}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(v1alpha1.NewTaskView(t)); err != nil {
			b.Fatal(err)
		}
	}
}
