package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
)

// margin is how long after its end a sandbox's record is still looked at: the
// end is written down a moment after it was.
const margin = time.Minute

// charge charges every node up to a moment. After an error what is known is to
// be loaded anew.
func (s *Service) charge(ctx context.Context, to time.Time) error {
	st := &s.m.state
	from := to
	for _, l := range st.Lives {
		if l.Charged.Before(from) {
			from = l.Charged
		}
	}
	if !from.Before(to) && !(s.m.waiting && len(st.Lives) == 0) {
		return nil
	}
	s.m.waiting = false
	records, err := s.o.Store.Sandboxes(ctx, from.Add(-margin))
	if err != nil {
		return fmt.Errorf("read sandboxes: %w", err)
	}
	on := boxesOn(records)
	if from.Before(to) {
		if err := s.peaks(ctx, from, to); err != nil {
			return err
		}
	}
	for _, l := range st.Lives {
		if err := s.chargeNode(ctx, l, to, on); err != nil {
			return err
		}
	}
	here, busy := map[fleet.SandboxID]bool{}, map[fleet.TaskID]bool{}
	for i := range records {
		here[records[i].Spec.ID] = true
		if records[i].Task != "" {
			busy[records[i].Task] = true
			if err := s.settle(ctx, &records[i], to); err != nil {
				return err
			}
		}
	}
	st.Lives = slices.DeleteFunc(st.Lives, func(l *life) bool {
		return !l.Node.Released.IsZero() && l.Charged.After(l.Node.Released)
	})
	s.here, s.busy = here, busy
	return nil
}

// boxesOn are sandboxes by the node they are on.
func boxesOn(records []fleet.Sandbox) map[fleet.NodeID][]cost.Box {
	out := map[fleet.NodeID][]cost.Box{}
	for i := range records {
		r := &records[i]
		b := cost.Box{
			ID: r.Spec.ID, Node: cmp.Or(r.Isolation.Node, r.Spec.Node), Pool: r.Spec.Pool, Created: r.CreatedAt, Gone: r.GoneAt, Task: r.Task,
			Size: cost.Size{MilliCPU: r.Spec.Resources.MilliCPU, MemoryBytes: r.Spec.Resources.MemoryBytes},
		}
		if r.Task != "" {
			b.Claimed = later(r.ClaimedAt, r.CreatedAt)
		}
		out[b.Node] = append(out[b.Node], b)
	}
	return out
}

// chargeNode charges one node, hour by hour.
func (s *Service) chargeNode(ctx context.Context, l *life, to time.Time, on map[fleet.NodeID][]cost.Box) error {
	boxes := on[l.Node.ID]
	if l.Boot != "" {
		boxes = slices.Clone(boxes)
		for _, b := range on[l.Boot] { // made for it before it had its name
			b.Node = l.Node.ID
			boxes = append(boxes, b)
		}
	}
	for l.Charged.Before(to) {
		until := l.Charged.UTC().Truncate(time.Hour).Add(time.Hour)
		if until.After(to) {
			until = to
		}
		if err := s.chargePart(ctx, l, until, boxes); err != nil {
			return err
		}
		l.Charged = until
	}
	return nil
}

// both are the books of the hour and the day that a time is in.
func (s *Service) both(ctx context.Context, at time.Time) ([2]*cost.Book, error) {
	hour, err := s.book(ctx, fleet.BookHour, at.UTC().Truncate(time.Hour))
	if err != nil {
		return [2]*cost.Book{}, err
	}
	day, err := s.book(ctx, fleet.BookDay, at.UTC().Truncate(24*time.Hour))
	return [2]*cost.Book{hour, day}, err
}

// chargePart charges one node up to a moment of the hour that it is charged in
// now.
func (s *Service) chargePart(ctx context.Context, l *life, to time.Time, boxes []cost.Box) error {
	from := l.Charged
	books, err := s.both(ctx, from)
	if err != nil {
		return err
	}
	for _, e := range cost.Sweep(from, to, []cost.Node{l.Node}, boxes) {
		k := cost.Key{Cause: e.Cause}
		if e.Cause == cost.CauseTask {
			if k, err = s.keyOf(ctx, e.Task); err != nil {
				return err
			}
			t, err := s.task(ctx, e.Task)
			if err != nil {
				return err
			}
			t.MicroUSD += int64(e.Amount)
			s.putTask(t)
		}
		k.Kind, k.Pool = l.Kind, e.Pool
		s.m.fresh.by[freshKey{k.Cause, k.Tenant}] += e.Amount
		for _, b := range books {
			b.Charge(k, e)
			if e.Box == "" {
				b.Spend(k, e.To.Sub(e.From))
			}
		}
	}
	var held time.Duration
	for i := range boxes {
		d, err := s.spend(ctx, l, &boxes[i], to, books)
		if err != nil {
			return err
		}
		held += d
	}
	end := to
	if r := l.Node.Released; !r.IsZero() && r.Before(end) {
		end = r
	}
	h := cost.Hour{Nodes: max(0, end.Sub(from)).Milliseconds(), Busy: held.Milliseconds()}
	s.m.fresh.nodes += time.Duration(h.Nodes) * time.Millisecond
	s.m.fresh.busy += held
	if !s.tariff.Knows(l.Kind, from) {
		h.Unpriced = h.Nodes
	}
	for _, b := range books {
		b.Add(cost.HourOf(from), h)
	}
	return nil
}

// spend adds the time of one sandbox from where the node is charged to a
// moment, and returns that with a task.
func (s *Service) spend(ctx context.Context, l *life, b *cost.Box, to time.Time, books [2]*cost.Book) (time.Duration, error) {
	end := b.Gone
	if end.IsZero() {
		end = to
	}
	waited := end
	if !b.Claimed.IsZero() && b.Claimed.Before(end) {
		waited = b.Claimed
	}
	if d := within(b.Created, waited, l.Charged, to); d > 0 {
		for _, k := range books {
			k.Spend(cost.Key{Cause: cost.CauseWarm, Kind: l.Kind, Pool: b.Pool}, d)
		}
	}
	d := time.Duration(0)
	if !b.Claimed.IsZero() {
		d = within(b.Claimed, end, l.Charged, to)
	}
	if d <= 0 {
		return 0, nil
	}
	k, err := s.keyOf(ctx, b.Task)
	if err != nil {
		return 0, err
	}
	t, err := s.task(ctx, b.Task)
	if err != nil {
		return 0, err
	}
	t.Busy += d
	s.putTask(t)
	k.Kind, k.Pool = l.Kind, b.Pool
	for _, x := range books {
		x.Spend(k, d)
	}
	return d, nil
}

// within is how much of [begin, end) is in [from, to), in full milliseconds
// since begin, so that pieces add up however they are cut.
func within(begin, end, from, to time.Time) time.Duration {
	if end.After(to) {
		end = to
	}
	done := func(at time.Time) time.Duration { return max(0, at.Sub(begin)).Truncate(time.Millisecond) }
	if from.After(end) {
		return 0
	}
	return done(end) - done(from)
}

// settle counts the task of a sandbox once it is over.
func (s *Service) settle(ctx context.Context, r *fleet.Sandbox, to time.Time) error {
	if s.m.over[r.Spec.ID] || r.State == fleet.SandboxClaimed {
		return nil
	}
	t, err := s.o.Store.Task(ctx, r.Task)
	if errors.Is(err, fleet.ErrNotFound) {
		s.m.over[r.Spec.ID] = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read task %s: %w", r.Task, err)
	}
	if !t.State.Final() {
		s.m.over[r.Spec.ID] = t.Fence != r.Fence // another attempt has it now
		return nil
	}
	if t.EndedAt.After(to) || r.GoneAt.IsZero() || r.GoneAt.After(to) {
		s.m.waiting = true // not all of it is charged yet
		return nil
	}
	s.m.over[r.Spec.ID] = true
	c, err := s.task(ctx, r.Task)
	if err != nil || c.Outcome != "" || t.Fence != r.Fence {
		return err
	}
	c.Outcome = t.State
	s.putTask(c)
	books, err := s.both(ctx, later(t.EndedAt, s.m.state.Began))
	if err != nil {
		return err
	}
	k, err := s.keyOf(ctx, r.Task)
	if err != nil {
		return err
	}
	k.Pool = r.Spec.Pool
	for _, b := range books {
		b.Settle(k, t.State == fleet.TaskSucceeded)
	}
	s.measure(books, k, r, &t)
	return nil
}

// peaks notes the most nodes at once of each hour in [from, to).
func (s *Service) peaks(ctx context.Context, from, to time.Time) error {
	type step struct {
		at time.Time
		by int
	}
	var steps []step
	for _, l := range s.m.state.Lives {
		if l.Charged.Before(to) && (l.Node.Released.IsZero() || l.Node.Released.After(l.Charged)) {
			steps = append(steps, step{l.Charged, 1})
			if r := l.Node.Released; !r.IsZero() {
				steps = append(steps, step{r, -1})
			}
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.by, b.by)) })
	now, i := 0, 0
	for hour := from.UTC().Truncate(time.Hour); hour.Before(to); hour = hour.Add(time.Hour) {
		peak := now
		for ; i < len(steps) && steps[i].at.Before(hour.Add(time.Hour)); i++ {
			now += steps[i].by
			peak = max(peak, now)
		}
		books, err := s.both(ctx, hour)
		if err != nil {
			return err
		}
		for _, b := range books {
			b.Add(cost.HourOf(hour), cost.Hour{Peak: int64(peak)})
		}
	}
	return nil
}
