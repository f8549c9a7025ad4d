package whatif

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// kept is a store of what is asked of it here.
type kept struct {
	fleet.Store
	tasks []fleet.Task // newest first
	spec  []byte
}

func (k *kept) Tasks(_ context.Context, f fleet.TaskFilter) (out []fleet.Task, _ error) {
	for _, t := range k.tasks {
		if (f.Before == "" || t.ID < f.Before) && !t.SubmittedAt.Before(f.Since) && len(out) < f.Limit {
			out = append(out, t)
		}
	}
	return out, nil
}

func (k *kept) Revisions(context.Context, fleet.RevisionFilter) ([]fleet.Revision, error) {
	if k.spec == nil {
		return nil, nil
	}
	return []fleet.Revision{{Number: 1, Spec: k.spec}}, nil
}

func finished(at time.Time, n int) []fleet.Task {
	var out []fleet.Task
	for i := n - 1; i >= 0; i-- {
		due := at.Add(time.Duration(i) * time.Minute)
		out = append(out, fleet.Task{
			ID: fleet.NewTaskID(due), State: fleet.TaskSucceeded, SubmittedAt: due, DueAt: due, StartedAt: due.Add(2 * time.Second), EndedAt: due.Add(5 * time.Minute),
			Spec: fleet.TaskSpec{Template: "default", Pool: "default"},
		})
	}
	return out
}

func answering(t *testing.T, k *kept) *Service {
	t.Helper()
	written, err := v1alpha1.Written([]byte(elastic))
	if err != nil {
		t.Fatal(err)
	}
	k.spec = written
	f := parse(t, elastic)
	return New(Options{
		Store: k, View: func(context.Context) (fleet.View, error) { return fleet.View{}, nil },
		Parse: v1alpha1.ParseFleet, Fleet: func() *v1alpha1.Fleet { return f }, Rules: rules(),
		Clock: func() time.Time { return monday.Add(48 * time.Hour) },
	})
}

func TestWhatIf(t *testing.T) {
	s := answering(t, &kept{tasks: append([]fleet.Task{{ID: fleet.NewTaskID(monday.Add(30 * time.Hour)), State: fleet.TaskQueued, SubmittedAt: monday.Add(30 * time.Hour)}}, finished(monday.Add(24*time.Hour), 200)...)})
	w, err := s.WhatIf(t.Context(), fleet.WhatIfQuery{Patch: []byte(`{"spec":{"capacity":{"sandboxes":{"min":0}}}}`), Policies: []string{"keda", "clairvoyant"}})
	if err != nil {
		t.Fatal(err)
	}
	if w.Basis.Tasks != 180 || w.Basis.WarmUp != 20 || w.Basis.LeftOut != 1 || w.Basis.Measured.WaitP95 != 2 || w.Basis.Measured.Within != 1 {
		t.Errorf("%+v", w.Basis)
	}
	if len(w.Changes) != 1 || !strings.Contains(w.Changes[0], "capacity.sandboxes.min 4 → 0") {
		t.Errorf("%q", w.Changes)
	}
	if len(w.Policies) != 2 || w.Policies[0].Policy != "keda" || w.Present.Policy != "muster" || w.Changed == nil || w.Saved == nil {
		t.Fatalf("%+v", w)
	}
	if w.Saved.MicroUSD != w.Present.MicroUSD-w.Changed.MicroUSD || w.Saved.MicroUSD <= 0 || !strings.Contains(w.Sentence, "less in 30 days") {
		t.Errorf("%+v %s", w.Saved, w.Sentence)
	}
	plain, err := s.WhatIf(t.Context(), fleet.WhatIfQuery{})
	if err != nil || plain.Changed != nil || plain.Present != w.Present || !strings.HasPrefix(plain.Sentence, "As it is") {
		t.Errorf("%+v %v", plain, err)
	}
}

func TestWhatIfRefuses(t *testing.T) {
	s := answering(t, &kept{tasks: finished(monday.Add(24*time.Hour), 20)})
	for field, q := range map[string]fleet.WhatIfQuery{
		"patch":                            {Patch: []byte(`{"metadata":{}}`)},
		"spec.capacity.sandboxes.min":      {Patch: []byte(`{"spec":{"capacity":{"sandboxes":{"min":-1}}}}`)},
		"spec.templates[0].resources.cpus": {Patch: []byte(`{"spec":{"templates":[{"name":"default","resources":{"cpus":"none"}}]}}`)},
		"spec.nodes.size":                  {Patch: []byte(`{"spec":{"nodes":{"size":3}}}`)},
		"spec.cost.priceFile":              {Patch: []byte(`{"spec":{"cost":{"priceFile":"/etc/passwd"}}}`)},
		"policies[0]":                      {Policies: []string{"magic"}},
		"policies[1]":                      {Policies: []string{"keda", "keda"}},
		"policies":                         {Policies: strings.Split("keda,hpa,kpa,fixed,fixed-p99,reactive,schedule,clairvoyant,keda,hpa", ",")},
		"since":                            {Since: monday.Add(72 * time.Hour)},
	} {
		_, err := s.WhatIf(t.Context(), q)
		var e *fleet.FieldError
		if !errors.As(err, &e) || e.Field != field || e.Right == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := s.WhatIf(t.Context(), fleet.WhatIfQuery{Since: monday.Add(-400 * 24 * time.Hour)}); err == nil || !strings.Contains(err.Error(), "366 days") {
		t.Errorf("too long a time: %v", err)
	}
	for patch, names := range map[string]bool{
		`{"spec":{"cost":{"PRICEFILE":"x"}}}`: true, `{"Spec":{"cost":{"priceFile":""}},"spec":{}}`: true, `{"spec":{"cost":{"priceFile":null}}}`: false, `{"spec":{"cost":{"prices":[]}}}`: false, `[]`: false, `x`: false, ``: false,
	} {
		if namesFile([]byte(patch)) != names {
			t.Errorf("%s: names a file: %t", patch, !names)
		}
	}
	if _, err := answering(t, &kept{}).WhatIf(t.Context(), fleet.WhatIfQuery{}); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("with no history: %v", err)
	}
}

// TestOneAtATime: while a question is answered another is refused, and not
// after that.
func TestOneAtATime(t *testing.T) {
	s := answering(t, &kept{tasks: finished(monday.Add(24*time.Hour), 20)})
	_, end, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WhatIf(t.Context(), fleet.WhatIfQuery{}); !errors.Is(err, fleet.ErrFull) {
		t.Errorf("beside another: %v", err)
	}
	end()
	if _, err := s.WhatIf(t.Context(), fleet.WhatIfQuery{}); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// TestReadPages: a history is read page by page to its bound.
func TestReadPages(t *testing.T) {
	k := &kept{tasks: finished(monday, 2*page+7)}
	h, err := Read(t.Context(), k, monday, monday.Add(time.Duration(2*page)*time.Minute))
	if err != nil || len(h.Tasks) != 2*page || h.Truncated {
		t.Errorf("%d tasks, %v", len(h.Tasks), err)
	}
	for i := 1; i < len(h.Tasks); i++ {
		if h.Tasks[i].Arrival.Before(h.Tasks[i-1].Arrival) {
			t.Fatal("not in the order of time")
		}
	}
	for range MaxTasks {
		h.Tasks = append(h.Tasks, h.Tasks[0])
	}
	if h.Bound(); len(h.Tasks) != MaxTasks || !h.Truncated {
		t.Errorf("%d tasks of more", len(h.Tasks))
	}
}
