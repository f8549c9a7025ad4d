package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// followSandboxes answers with a page that goes on.
func (s *Server) followSandboxes(ctx context.Context, in *sandboxesInput, q boxQuery) (*huma.StreamResponse, error) {
	switch {
	case in.Gone != "":
		return nil, &fleet.FieldError{Field: "query.gone", Wrong: "is given beside follow", Right: "one of the two"}
	case in.Continue != "":
		return nil, &fleet.FieldError{Field: "query.continue", Wrong: "is given beside follow", Right: "offset"}
	case in.Limit > mostFollowRows:
		return nil, &fleet.FieldError{Field: "query.limit", Wrong: fmt.Sprintf("%d is too much beside follow", in.Limit), Right: fmt.Sprintf("1 to %d", mostFollowRows)}
	case in.Limit == 0:
		q.limit = followRows
	}
	ctx, done, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer done()
		defer s.roster.look()()
		_, w := humago.Unwrap(hc)
		stream, end := newStream(ctx, w, "text/event-stream")
		defer end()
		f := &boxFollower{s: s, q: q, out: stream, sent: map[fleet.SandboxID]sentRow{}}
		if err := f.run(ctx); err != nil {
			s.Logger.Debug("stream of sandboxes ended", "error", err)
		}
	}}, nil
}

// boxFollower sends one client what changes of its page.
type boxFollower struct {
	s     *Server
	q     boxQuery
	out   *streamWriter
	began bool
	ids   []fleet.SandboxID
	sent  map[fleet.SandboxID]sentRow
	told  [2]any // total and counts
}

// sentRow is what the client knows of a row.
type sentRow struct {
	base []byte    // the row without its use
	use  time.Time // when the use it has was read
}

// run sends deltas until ctx ends.
func (f *boxFollower) run(ctx context.Context) error {
	r := f.s.roster
	tick, beat := time.NewTicker(rosterLeast), time.NewTicker(f.s.beat)
	defer tick.Stop()
	defer beat.Stop()
	for {
		lines, err := r.read(ctx, r.pace())
		if err != nil {
			return err
		}
		// What is in view comes first: at once the first time, measured after that.
		page, total, counts := r.page(lines, f.q)
		if f.began {
			r.measure(ctx, page)
		}
		if err := f.send(page, total, counts); err != nil {
			return err
		}
		if !f.began {
			f.began = true
			continue
		}
		r.sweep(ctx, lines)
		select {
		case <-tick.C:
		case <-beat.C:
			if err := f.out.beat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send writes what the client does not know yet, if anything.
func (f *boxFollower) send(page []*line, total int, counts v1alpha1.SandboxCounts) error {
	d := v1alpha1.SandboxDelta{Total: total, Counts: counts, Offset: min(f.q.offset, total)}
	ids := make([]fleet.SandboxID, len(page))
	known := make(map[fleet.SandboxID]sentRow, len(page))
	for i, l := range page {
		ids[i] = l.view.ID
		row, err := f.row(l, &d)
		if err != nil {
			return err
		}
		known[l.view.ID] = row
	}
	f.sent = known
	told := [2]any{total, counts}
	moved := !f.began || !slices.Equal(ids, f.ids)
	if !moved && told == f.told && len(d.Rows) == 0 && len(d.Uses) == 0 {
		return nil
	}
	if moved {
		d.IDs = ids
	}
	f.ids, f.told = ids, told
	if err := f.out.event(v1alpha1.SandboxRecord, "", d); err != nil {
		return err
	}
	return f.out.flush()
}

// row adds to the delta what the client does not know of a sandbox.
func (f *boxFollower) row(l *line, d *v1alpha1.SandboxDelta) (sentRow, error) {
	base, err := json.Marshal(l.view)
	if err != nil {
		return sentRow{}, fmt.Errorf("write sandbox %s: %w", l.view.ID, err)
	}
	use, io, read := f.s.roster.newest(l)
	was, known := f.sent[l.view.ID]
	switch {
	case !known:
		d.Rows = append(d.Rows, f.s.roster.whole(l, true))
	case !bytes.Equal(was.base, base):
		d.Rows = append(d.Rows, f.s.roster.whole(l, false))
	case read.After(was.use):
		d.Uses = append(d.Uses, v1alpha1.SandboxUse{ID: l.view.ID, Usage: use, IOBytes: io})
	}
	return sentRow{base, read}, nil
}

// newest is the last reading of a sandbox's counters; its time is zero where
// there is none.
func (r *roster) newest(l *line) (use v1alpha1.UsageView, io int64, read time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.trails[l.view.ID]; t != nil && l.live {
		return v1alpha1.NewUsageView(t.last), t.io(), t.read
	}
	return l.view.Usage, 0, time.Time{}
}
