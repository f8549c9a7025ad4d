package replay

import (
	"bytes"
	"context"
	"fmt"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

const (
	// mostDifferences and mostFields bound what is reported in full; the rest
	// is counted.
	mostDifferences = 10
	mostFields      = 8
)

// Result is what Check found.
type Result struct {
	Span
	// Replayed decisions were made again: Same of them bit for bit, Reworded
	// with the same decision in other words, Different otherwise.
	Replayed  int `json:"replayed"`
	Same      int `json:"same"`
	Reworded  int `json:"reworded"`
	Different int `json:"different"`
	// Older ones were made by a version that did not record the policy: they
	// cannot be made again.
	Older int `json:"older"`
	// Version is the planner's that made them again.
	Version     int          `json:"version"`
	Differences []Difference `json:"differences"` // the first ones
	FirstOlder  Mark         `json:"firstOlder,omitzero"`
}

// Reproduced reports whether every decision that can be made again came out as
// it was, and there was one.
func (r *Result) Reproduced() bool { return r.Different == 0 && r.Replayed > 0 }

// Difference is a decision that came out differently.
type Difference struct {
	Mark
	Version int     `json:"version"`           // of the planner that made it first
	Fields  []Field `json:"fields"`            // the first ones
	More    int     `json:"more,omitempty"`    // fields that differ beside these
	Problem string  `json:"problem,omitempty"` // why it could not be made again
}

// Check makes every decision of the range again, under the policy it was made
// under.
func Check(ctx context.Context, src Source, in Range) (*Result, error) {
	r := &Result{Version: plan.Version, Differences: []Difference{}}
	under := policies{src, map[string]*plan.Policy{}}
	span, err := Each(ctx, src, in, func(d *fleet.DecisionRecord) error {
		if err := tooNew(d); err != nil {
			return err
		}
		if d.Policy == "" {
			if r.Older++; r.Older == 1 {
				r.FirstOlder = Mark{d.Seq, d.At}
			}
			return nil
		}
		p, err := under.of(ctx, d)
		if err != nil {
			return err
		}
		r.one(d, p)
		return nil
	})
	r.Span = span
	return r, err
}

func (r *Result) one(d *fleet.DecisionRecord, p *plan.Policy) {
	r.Replayed++
	got, err := plan.Redecide(d, p)
	if err != nil {
		r.differs(d, Difference{Problem: err.Error()})
		return
	}
	if bytes.Equal(got, d.Plan) {
		r.Same++
		return
	}
	fields, err := differ(d.Plan, got)
	if err != nil {
		r.differs(d, Difference{Problem: fmt.Sprintf("decision %d: its plan cannot be read: %v", d.Seq, err)})
		return
	}
	real := decided(fields)
	switch {
	case len(fields) == 0: // written in another order or with other spaces
		r.Same++
	case len(real) == 0:
		r.Reworded++
	default:
		n := min(len(real), mostFields)
		r.differs(d, Difference{Fields: real[:n], More: len(real) - n})
	}
}

func (r *Result) differs(d *fleet.DecisionRecord, x Difference) {
	if r.Different++; r.Different > mostDifferences {
		return
	}
	x.Mark, x.Version = Mark{d.Seq, d.At}, d.Version
	if x.Fields == nil {
		x.Fields = []Field{}
	}
	r.Differences = append(r.Differences, x)
}
