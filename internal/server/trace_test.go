package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// TestTraceOfTheSubmitter: it is kept with the task; what is no trace context is
// ignored and no error, and another one is no other task under the same key.
func TestTraceOfTheSubmitter(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := newRig(t)
	for _, c := range []struct {
		parent, state string
		want          fleet.Trace
	}{
		{"", "", fleet.Trace{}},
		{parent, "a=1", fleet.Trace{Parent: parent, State: "a=1"}},
		{parent, strings.Repeat("x", 10_000), fleet.Trace{Parent: parent}},
		{"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", "a=1", fleet.Trace{}},
		{strings.Repeat("f", 20_000), "", fleet.Trace{}},
	} {
		req := r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{echo()}})
		req.Header.Set("Traceparent", c.parent)
		req.Header.Set("Tracestate", c.state)
		resp := r.do(req)
		var list v1alpha1.TaskList
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != http.StatusCreated || len(list.Tasks) != 1 {
			t.Fatalf("%.60q: %s, %v", c.parent, resp.Status, err)
		}
		task, err := r.store.Task(t.Context(), list.Tasks[0].ID)
		if err != nil || task.Spec.Trace != c.want {
			t.Errorf("%.60q: task with %+v, want %+v; %v", c.parent, task.Spec.Trace, c.want, err)
		}
	}
	again := echo()
	again.IdempotencyKey = "k"
	for i, want := range []int{http.StatusCreated, http.StatusOK} {
		req := r.request("POST", "/v1/tasks", v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{again}})
		req.Header.Set("Traceparent", strings.Replace(parent, "00f067", []string{"aaaaaa", "bbbbbb"}[i], 1))
		if resp := r.do(req); resp.StatusCode != want {
			t.Errorf("repeated in another span: %s, want %d", resp.Status, want)
		}
	}
}
