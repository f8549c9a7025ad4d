package whatif

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sim"
)

// Bounds of a question.
const (
	// DefaultSpan is the history that is asked when nobody says which.
	DefaultSpan = 14 * 24 * time.Hour
	// MaxSpan bounds a history in time.
	MaxSpan = 366 * 24 * time.Hour
	// MaxPolicies bounds the rivals of one question.
	MaxPolicies = 9
	// Patience is how long one question may take; clients wait a little longer.
	Patience = 50 * time.Second
)

// Options are what a Service works with.
type Options struct {
	Store fleet.Store
	View  func(context.Context) (fleet.View, error)
	// Parse reads a fleet as a start would, with its defaults.
	Parse func(written []byte) (*v1alpha1.Fleet, error)
	// Fleet is the one in force.
	Fleet func() *v1alpha1.Fleet
	Rules Rules
	Clock func() time.Time // nil: time.Now
}

// Service answers questions one at a time: a simulation takes a processor for
// seconds, of which the fleet's own work should have what it needs.
type Service struct {
	o    Options
	busy chan struct{}
}

// New returns a Service. It holds nothing that has to be closed.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Service{o: o, busy: make(chan struct{}, 1)}
}

// Begin takes the one place there is and bounds the time; end gives it back.
// fleet.ErrFull while another question is answered.
func (s *Service) Begin(ctx context.Context) (_ context.Context, end func(), err error) {
	select {
	case s.busy <- struct{}{}:
	default:
		return nil, nil, fmt.Errorf("another simulation is under way; ask again when it is done: %w", fleet.ErrFull)
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	return ctx, func() { cancel(); <-s.busy }, nil
}

// Written is the fleet in force as it was written.
func (s *Service) Written(ctx context.Context) ([]byte, error) {
	last, err := s.o.Store.Revisions(ctx, fleet.RevisionFilter{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	if len(last) > 0 {
		return last[0].Spec, nil
	}
	return json.Marshal(s.o.Fleet())
}

// Lab is one on the history of a time; zero times are the defaults.
func (s *Service) Lab(ctx context.Context, since, until time.Time) (*Lab, error) {
	now := s.o.Clock()
	if until.IsZero() || until.After(now) {
		until = now
	}
	if since.IsZero() {
		since = until.Add(-DefaultSpan)
	}
	switch {
	case !since.Before(until):
		return nil, &fleet.FieldError{Field: "since", Wrong: since.UTC().Format(time.RFC3339) + " is not before until", Right: "a time before " + until.UTC().Format(time.RFC3339)}
	case until.Sub(since) > MaxSpan:
		return nil, &fleet.FieldError{Field: "since", Wrong: since.UTC().Format(time.RFC3339) + " is too long ago", Right: "at most 366 days before until"}
	}
	view, err := s.o.View(ctx)
	if err != nil {
		return nil, err
	}
	h, err := Read(ctx, s.o.Store, since, until)
	if err != nil {
		return nil, err
	}
	return NewLab(h, Look(&view), s.o.Rules, now)
}

// WhatIf answers a question. Errors are a *fleet.FieldError of it, for every
// field of a patch that does not hold; ErrNothing; or wrap fleet.ErrFull while
// another one is answered.
func (s *Service) WhatIf(ctx context.Context, q fleet.WhatIfQuery) (fleet.WhatIf, error) {
	var out fleet.WhatIf
	if err := checkPolicies(q.Policies); err != nil {
		return out, err
	}
	if namesFile(q.Patch) { // the simulation would open it
		return out, &fleet.FieldError{Field: "spec.cost.priceFile", Wrong: "a file is not opened to simulate", Right: "the prices themselves, in spec.cost.prices"}
	}
	changed, changes, err := s.Changed(ctx, q.Patch)
	if err != nil {
		return out, err
	}
	ctx, end, err := s.Begin(ctx)
	if err != nil {
		return out, err
	}
	defer end()
	lab, err := s.Lab(ctx, q.Since, q.Until)
	if err != nil {
		return out, err
	}
	now := s.o.Fleet()
	if out.Present, err = lab.Run(ctx, Case{Fleet: now}); err != nil {
		return out, late(err)
	}
	if out.Basis, err = lab.Basis(now, &out.Present); err != nil {
		return out, err
	}
	out.Changes, out.Policies = []string{}, []fleet.WhatIfOutcome{}
	if changed != nil {
		o, err := lab.Run(ctx, Case{Fleet: changed})
		if err != nil {
			return out, late(err)
		}
		for _, c := range changes {
			out.Changes = append(out.Changes, c.String())
		}
		saved := Saving(&out.Present, &o)
		out.Changed, out.Saved = &o, &saved
	}
	for _, name := range q.Policies {
		o, err := lab.Run(ctx, Case{Fleet: now, Policy: name})
		if err != nil {
			return out, late(err)
		}
		out.Policies = append(out.Policies, o)
	}
	out.Sentence = verdict(&out)
	return out, nil
}

// late says that a question took too long.
func late(err error) error {
	if err == context.DeadlineExceeded { //nolint:errorlint // only our own, unwrapped
		return fmt.Errorf("the simulation took longer than %s; ask about a shorter time: %w", Patience, fleet.ErrUnavailable)
	}
	return err
}

func checkPolicies(names []string) error {
	if len(names) > MaxPolicies {
		return &fleet.FieldError{Field: "policies", Wrong: fmt.Sprintf("has %d names", len(names)), Right: fmt.Sprintf("at most %d", MaxPolicies)}
	}
	for i, name := range names {
		if !slices.Contains(sim.Names(), name) || name == "muster" {
			return &fleet.FieldError{Field: fmt.Sprintf("policies[%d]", i), Wrong: fmt.Sprintf("%.40q is unknown", name), Right: "one of " + strings.Join(sim.Names()[1:], ", ")}
		}
		if slices.Contains(names[:i], name) {
			return &fleet.FieldError{Field: fmt.Sprintf("policies[%d]", i), Wrong: name + " is there already", Right: "each policy once"}
		}
	}
	return nil
}

// Changed is the fleet in force with a patch, checked as if it were new, and
// what differs; nil without a patch.
func (s *Service) Changed(ctx context.Context, patch []byte) (*v1alpha1.Fleet, []v1alpha1.SpecChange, error) {
	if len(patch) == 0 {
		return nil, nil, nil
	}
	before, err := s.Written(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s.Apply(before, patch)
}

// Apply is a fleet as it was written with a patch, checked as if it were new,
// and what differs. Errors are a *fleet.FieldError for each problem.
func (s *Service) Apply(before, patch []byte) (*v1alpha1.Fleet, []v1alpha1.SpecChange, error) {
	after, err := v1alpha1.Merge(before, patch)
	if err != nil {
		return nil, nil, err
	}
	f, err := s.o.Parse(after)
	if err != nil {
		return nil, nil, err
	}
	changes, err := v1alpha1.Changes(before, after)
	return f, changes, err
}

// namesFile tells whether a patch names a price file. Who may only look may ask
// what would be, and must not have files of the server opened. A name in other
// letters counts, too, however it would be read later.
func namesFile(patch []byte) bool {
	var all any
	if json.Unmarshal(patch, &all) != nil {
		return false // refused as a patch
	}
	at := []any{all}
	for _, key := range []string{"spec", "cost", "priceFile"} {
		var below []any
		for _, v := range at {
			fields, _ := v.(map[string]any)
			for k, x := range fields {
				if strings.EqualFold(k, key) && x != nil {
					below = append(below, x)
				}
			}
		}
		at = below
	}
	return len(at) > 0
}

// Saving is what the second outcome costs less than the first.
func Saving(a, b *fleet.WhatIfOutcome) fleet.WhatIfSaving {
	s := fleet.WhatIfSaving{MicroUSD: a.MicroUSD - b.MicroUSD, MonthMicroUSD: a.MonthMicroUSD - b.MonthMicroUSD}
	if a.MicroUSD > 0 {
		s.Share = float64(s.MicroUSD) / float64(a.MicroUSD)
	}
	return s
}

// verdict says in a sentence what a change does.
func verdict(w *fleet.WhatIf) string {
	waits := func(o *fleet.WhatIfOutcome) string {
		return fmt.Sprintf("99 of 100 tasks start within %s", seconds(o.WaitP99))
	}
	if w.Changed == nil {
		return fmt.Sprintf("As it is: $%.2f in 30 days, and %s.", float64(w.Present.MonthMicroUSD)/1e6, waits(&w.Present))
	}
	money := "costs the same"
	switch d := w.Saved.MonthMicroUSD; {
	case d > 0:
		money = fmt.Sprintf("costs $%.2f (%.1f %%) less in 30 days", float64(d)/1e6, 100*w.Saved.Share)
	case d < 0:
		money = fmt.Sprintf("costs $%.2f (%.1f %%) more in 30 days", -float64(d)/1e6, -100*w.Saved.Share)
	}
	text := fmt.Sprintf("With the change the fleet %s, and %s (as it is: %s).", money, waits(w.Changed), seconds(w.Present.WaitP99))
	if !w.Changed.Meets {
		text += fmt.Sprintf(" The objective of %s is missed: %.2f %% start within it.", seconds(w.Basis.ObjectiveSeconds), 100*w.Changed.Within)
	}
	return text
}
