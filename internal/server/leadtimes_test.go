package server

import (
	"errors"
	"testing"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func TestLeadTimes(t *testing.T) {
	r := newRig(t)
	got := call[v1alpha1.LeadTimes](r, "GET", "/v1/lead-times", nil, 200)
	if got.WithinSeconds != 60 || len(got.Stages) != 1 || got.Stages[0].Stage != fleet.StageStart || got.Stages[0].MaxSeconds != 2 {
		t.Errorf("%+v", got)
	}
	if x := got.Reactions; len(x) != 1 || x[0].Over || x[0].TotalSeconds != 5 || len(x[0].Parts) != 2 || x[0].Parts[1].Stage != fleet.StageRoom {
		t.Errorf("%+v", x)
	}
	r.engine.err = errors.New("not now")
	r.problem(r.request("GET", "/v1/lead-times", nil), 500)
}
