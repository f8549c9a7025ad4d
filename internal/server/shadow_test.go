package server

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func TestNothingIsSubmittedToAFollowedFleet(t *testing.T) {
	r := newRig(t, func(c *Config) {
		f := *c.Fleet()
		f.Spec.Mode, f.Spec.Queue.Type = v1alpha1.ModeScale, "redis"
		c.Fleet = func() *v1alpha1.Fleet { return &f }
	})
	resp := r.do(r.request(http.MethodPost, v1alpha1.RouteTasks, v1alpha1.SubmitRequest{Tasks: []v1alpha1.TaskSpec{{Command: []string{"true"}}}}))
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusConflict || !strings.Contains(string(body), "queue redis") {
		t.Errorf("%d %s, want 409 that says where tasks belong", resp.StatusCode, body)
	}
	if st, err := r.queue.Stats(t.Context()); err != nil || st.Backlog != 0 {
		t.Errorf("%d tasks were queued all the same, %v", st.Backlog, err)
	}
}

func TestShadow(t *testing.T) {
	r := newRig(t)
	resp := r.do(r.request(http.MethodGet, v1alpha1.RouteShadow, nil))
	var got fleet.Shadow
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusOK || len(got.Hours) != 1 || got.Hours[0].Workers != 14400 {
		t.Errorf("%d %+v, %v", resp.StatusCode, got, err)
	}
	for query, want := range map[string]int{"?since=2h": http.StatusNotFound, "?since=soon": http.StatusUnprocessableEntity} {
		if resp := r.do(r.request(http.MethodGet, v1alpha1.RouteShadow+query, nil)); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", query, resp.StatusCode, want)
		}
	}
}
