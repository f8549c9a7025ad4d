package evidence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

const (
	defaultSpan = 30 * 24 * time.Hour
	maxSpan     = 31 * 24 * time.Hour
	// quiet is the least gap that is shown: a decision is journaled every minute.
	quiet = 3 * time.Minute
	// Bounds of what is listed.
	mostEvents, mostAgents, mostChanges = 5000, 5000, 1000
)

// Options are what a Service reads.
type Options struct {
	Store   fleet.Store
	View    func(context.Context) (fleet.View, error)
	Explain func(context.Context, fleet.TaskID) (fleet.Explanation, error)
	// Report is what the fleet has cost; nil: nothing is charged.
	Report  func(context.Context, fleet.CostQuery) (fleet.CostReport, error)
	Fleet   func() *v1alpha1.Fleet
	Version string
	Clock   func() time.Time // nil: time.Now
}

// Service gathers evidence.
type Service struct{ o Options }

// New returns a Service. It holds nothing that has to be closed.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Service{o}
}

// gathering is one Evidence in the making.
type gathering struct {
	o     *Options
	out   fleet.Evidence
	names map[fleet.TaskID]string
	view  fleet.View
}

// Evidence gathers that of a time; it takes seconds for a month. Errors are a
// *fleet.FieldError of the query, or those of the store.
func (s *Service) Evidence(ctx context.Context, q fleet.EvidenceQuery) (fleet.Evidence, error) {
	now := s.o.Clock().UTC()
	if q.Until.IsZero() || q.Until.After(now) {
		q.Until = now
	}
	if q.Since.IsZero() {
		q.Since = q.Until.Add(-defaultSpan)
	}
	switch {
	case !q.Since.Before(q.Until):
		return fleet.Evidence{}, &fleet.FieldError{Field: "since", Wrong: q.Since.UTC().Format(time.RFC3339) + " is not before until", Right: "a time before " + q.Until.UTC().Format(time.RFC3339)}
	case q.Until.Sub(q.Since) > maxSpan:
		return fleet.Evidence{}, &fleet.FieldError{Field: "since", Wrong: q.Since.UTC().Format(time.RFC3339) + " is too long before until", Right: "at most 31 days"}
	}
	g := &gathering{o: &s.o, names: map[fleet.TaskID]string{}, out: fleet.Evidence{
		Fleet: s.o.Fleet().Metadata.Name, Version: s.o.Version, At: now, Since: q.Since.UTC(), Until: q.Until.UTC(), Notes: []string{},
	}}
	for _, step := range []func(context.Context) error{g.look, g.gaps, g.reaction, g.sandboxes, g.breaches, g.changes, g.events, g.weeks} {
		if err := step(ctx); err != nil {
			return fleet.Evidence{}, fmt.Errorf("gather evidence: %w", err)
		}
	}
	return g.out, nil
}

func (g *gathering) note(format string, args ...any) {
	g.out.Notes = append(g.out.Notes, fmt.Sprintf(format, args...))
}

func (g *gathering) look(ctx context.Context) (err error) {
	g.view, err = g.o.View(ctx)
	return err
}

// within tells whether a moment is in the time asked about.
func (g *gathering) within(t time.Time) bool {
	return !t.Before(g.out.Since) && t.Before(g.out.Until)
}

// gaps finds when no decision was journaled.
func (g *gathering) gaps(ctx context.Context) error {
	g.out.Gaps = []fleet.EvidenceGap{}
	at := g.out.Since
	first, err := g.o.Store.Revision(ctx, 1) // none is ever deleted
	switch {
	case errors.Is(err, fleet.ErrNotFound):
		g.note("no specification is on record, so that it is not known when the fleet began")
	case err != nil:
		return err
	case g.within(first.At):
		at = first.At.UTC()
		g.out.Began = at
	}
	begin := at
	var unseen time.Duration
	gap := func(from, until time.Time) {
		g.out.Gaps = append(g.out.Gaps, fleet.EvidenceGap{From: from.UTC(), Until: until.UTC()})
		unseen += until.Sub(from)
	}
	last := at // when somebody was last seen to look
	for at.Before(g.out.Until) {
		found, err := g.o.Store.Decisions(ctx, fleet.DecisionFilter{Since: at, Until: g.out.Until, Limit: 1})
		if err != nil {
			return err
		}
		if len(found) == 0 {
			break
		}
		if d := found[0].At; d.Sub(last) >= quiet {
			if before, err := g.lastBefore(ctx, last, d); err != nil {
				return err
			} else if d.Sub(before) >= quiet {
				gap(before, d)
			}
		}
		last = found[0].At
		at = last.Add(quiet / 2)
	}
	if g.out.Until.Sub(last) >= quiet {
		gap(last, g.out.Until)
	}
	g.out.Unseen = unseen.Seconds() / max(1e-9, g.out.Until.Sub(begin).Seconds())
	return nil
}

// lastBefore is the newest decision of a short stretch, the first of which is
// known; a stretch that begins with nothing begins with itself.
func (g *gathering) lastBefore(ctx context.Context, from, until time.Time) (time.Time, error) {
	found, err := g.o.Store.Decisions(ctx, fleet.DecisionFilter{Since: from, Until: min2(from.Add(quiet), until.Add(-1)), Limit: 10_000})
	if err != nil || len(found) == 0 {
		return from, err
	}
	return found[len(found)-1].At, nil
}

func min2(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// changes lists the specifications of the time, and the one before.
func (g *gathering) changes(ctx context.Context) error {
	g.out.Changes = []fleet.EvidenceChange{}
	list, err := g.o.Store.Revisions(ctx, fleet.RevisionFilter{Limit: mostChanges})
	if err != nil {
		return err
	}
	if len(list) > 0 {
		text, err := yaml.JSONToYAML(list[0].Spec)
		if err != nil {
			return fmt.Errorf("%w: %w", fleet.ErrCorrupt, err)
		}
		g.out.Spec = string(text)
	}
	for i := range list {
		r := &list[i]
		if !r.At.Before(g.out.Until) {
			continue
		}
		c := fleet.EvidenceChange{Number: r.Number, At: r.At.UTC(), Author: r.Author, Source: r.Source, Note: r.Note, Changes: []string{}}
		if i+1 < len(list) {
			changes, err := v1alpha1.Changes(list[i+1].Spec, r.Spec)
			if err != nil {
				return fmt.Errorf("%w: %w", fleet.ErrCorrupt, err)
			}
			for _, x := range changes {
				c.Changes = append(c.Changes, x.String())
			}
		}
		g.out.Changes = append(g.out.Changes, c)
		if r.At.Before(g.out.Since) {
			break // the one in force at the beginning
		}
	}
	slices.Reverse(g.out.Changes)
	return nil
}

// scaling are the events that size the fleet.
var scaling = []string{"sandboxes", "nodes", "consumers"}

// events lists why the fleet was sized as it was.
func (g *gathering) events(ctx context.Context) error {
	g.out.Events = []fleet.Event{}
	for _, layer := range scaling {
		found, err := g.o.Store.Events(ctx, fleet.EventFilter{Since: g.out.Since, Layer: layer, Limit: mostEvents, Last: true})
		if err != nil {
			return err
		}
		g.out.MoreEvent = g.out.MoreEvent || len(found) >= mostEvents
		for _, e := range found {
			if g.within(e.At) && e.Kind != "sandbox_ready" {
				g.out.Events = append(g.out.Events, e)
			}
		}
	}
	slices.SortFunc(g.out.Events, func(a, b fleet.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	if n := len(g.out.Events) - mostEvents; n > 0 {
		g.out.Events, g.out.MoreEvent = g.out.Events[n:], true
	}
	return nil
}

// weeks are what agents cost.
func (g *gathering) weeks(ctx context.Context) error {
	g.out.Weeks = []fleet.EvidenceWeek{}
	if g.o.Report == nil {
		g.note("others run the workers of this fleet: nothing is charged here")
		return nil
	}
	day := g.out.Since.Truncate(24 * time.Hour)
	from := day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	for ; from.Before(g.out.Until); from = from.AddDate(0, 0, 7) {
		since, until := from, min2(from.AddDate(0, 0, 7), g.out.Until)
		if since.Before(g.out.Since) {
			since = g.out.Since
		}
		r, err := g.o.Report(ctx, fleet.CostQuery{Since: since, Until: until})
		if err != nil {
			return err
		}
		if r.Began.IsZero() || !r.Began.Before(until) {
			continue // nothing is known of it
		}
		g.out.Weeks = append(g.out.Weeks, fleet.EvidenceWeek{
			From: since, Until: until, MicroUSD: r.MicroUSD, AgentHours: r.BusyHours, NodeHours: r.NodeHours, AgentHourMicroUSD: r.AgentHourMicroUSD, IdleShare: r.IdleShare,
		})
		if r.Unpriced > 0 {
			g.note("week of %s: no price is known for %.1f of its node-hours, which count as 0", from.Format(time.DateOnly), r.Unpriced)
		}
	}
	return nil
}
