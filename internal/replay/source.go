package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// Source yields journaled decisions. It is used by one goroutine.
type Source interface {
	// Next returns the decision with the next higher Seq; io.EOF after the last.
	// It may block on the network, and fails with what the server said, or with
	// a *fleet.FieldError for a journal that is not one.
	Next(ctx context.Context) (fleet.DecisionRecord, error)
	// Policy returns the JSON of a policy that a decision returned by Next was
	// made under; ErrNotFound.
	Policy(ctx context.Context, digest string) ([]byte, error)
}

// Range selects decisions; zero fields select all.
type Range struct {
	From, To     int64 // Seq, both included
	Since, Until time.Time
}

// Contains reports whether a decision is selected.
func (r Range) Contains(d *fleet.DecisionRecord) bool {
	return d.Seq >= r.From && (r.To == 0 || d.Seq <= r.To) &&
		!d.At.Before(r.Since) && (r.Until.IsZero() || !d.At.After(r.Until))
}

// Mark is a place in a journal.
type Mark struct {
	Seq int64     `json:"seq"`
	At  time.Time `json:"at"`
}

// Span is the part of a journal that was read.
type Span struct {
	Decisions int  `json:"decisions"` // in the range
	First     Mark `json:"first,omitzero"`
	Last      Mark `json:"last,omitzero"`
}

func (s *Span) add(d *fleet.DecisionRecord) {
	s.Last = Mark{d.Seq, d.At}
	if s.Decisions++; s.Decisions == 1 {
		s.First = s.Last
	}
}

// EmptyError says that a range selects no decision.
type EmptyError struct {
	Journal Span // what there is outside the range, as far as it was read
}

func (e *EmptyError) Error() string {
	if e.Journal.Decisions == 0 {
		return "there is no decision to replay"
	}
	return fmt.Sprintf("there is no decision in this range; the journal has decisions %d (%s) to %d (%s)",
		e.Journal.First.Seq, stamp(e.Journal.First.At), e.Journal.Last.Seq, stamp(e.Journal.Last.At))
}

// Is makes it wrong input.
func (e *EmptyError) Is(target error) bool { return target == fleet.ErrInvalid }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Each calls f for every decision of the range, in order, and returns what was
// read.
func Each(ctx context.Context, src Source, in Range, f func(*fleet.DecisionRecord) error) (Span, error) {
	var span, whole Span
	for {
		d, err := src.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return span, err
		}
		whole.add(&d)
		if !in.Contains(&d) {
			continue
		}
		span.add(&d)
		if err := f(&d); err != nil {
			return span, err
		}
	}
	if span.Decisions == 0 {
		return span, &EmptyError{whole}
	}
	return span, nil
}

// policies reads those of a source, each once.
type policies struct {
	src  Source
	read map[string]*plan.Policy
}

func (p *policies) of(ctx context.Context, d *fleet.DecisionRecord) (*plan.Policy, error) {
	if got := p.read[d.Policy]; got != nil {
		return got, nil
	}
	b, err := p.src.Policy(ctx, d.Policy)
	if errors.Is(err, fleet.ErrNotFound) {
		return nil, fmt.Errorf("decision %d was made under policy %s, which the journal does not have: %w", d.Seq, d.Policy, fleet.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy of decision %d: %w", d.Seq, err)
	}
	if digest := fleet.PolicyDigest(b); digest != d.Policy {
		return nil, fmt.Errorf("the policy of decision %d has changed since: its digest is %s and was %s: %w", d.Seq, digest, d.Policy, fleet.ErrCorrupt)
	}
	got := new(plan.Policy)
	if err := json.Unmarshal(b, got); err != nil {
		return nil, fmt.Errorf("the policy of decision %d cannot be read: %w: %w", d.Seq, fleet.ErrCorrupt, err)
	}
	p.read[d.Policy] = got
	return got, nil
}

// tooNew refuses what a newer planner decided: this one does not know all that
// its record says.
func tooNew(d *fleet.DecisionRecord) error {
	if d.Version <= plan.Version {
		return nil
	}
	return &inputError{fmt.Sprintf("decision %d was made by version %d of the planner, and this muster has version %d; want a muster at least as new as the one that decided",
		d.Seq, d.Version, plan.Version)}
}

// inputError is wrong input that has no place in a file.
type inputError struct{ text string }

func (e *inputError) Error() string        { return e.text }
func (e *inputError) Is(target error) bool { return target == fleet.ErrInvalid }
