package memory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/lifecycle"
)

// PutSandbox implements fleet.SandboxRecords. Writing over a claim that the
// writer has not seen is ErrConflict.
func (s *Store) PutSandbox(ctx context.Context, sb fleet.Sandbox) error {
	if err := s.begin(ctx, "PutSandbox"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if lifecycle.Overlooks(s.sandboxes[sb.Spec.ID], sb) {
		return fmt.Errorf("put sandbox %s as %s: task %s has claimed it: %w", sb.Spec.ID, sb.State, s.sandboxes[sb.Spec.ID].Task, fleet.ErrConflict)
	}
	s.put(lifecycle.CloneSandbox(lifecycle.CleanSandbox(sb)))
	return nil
}

// ClaimSandbox implements fleet.SandboxRecords.
func (s *Store) ClaimSandbox(ctx context.Context, l fleet.Lease, c fleet.Claim) (fleet.Task, error) {
	if err := s.begin(ctx, "ClaimSandbox"); err != nil {
		return fleet.Task{}, err
	}
	defer s.mu.Unlock()
	e, err := s.held(l.Task, l.Fence)
	if err != nil {
		return fleet.Task{}, fmt.Errorf("claim: %w", err)
	}
	return s.claim(e, c)
}

// claim joins a leased task and a ready sandbox; the lock is held.
func (s *Store) claim(e *entry, c fleet.Claim) (fleet.Task, error) {
	id := c.Sandbox
	sb, ok := s.sandboxes[id]
	switch {
	case !ok:
		return fleet.Task{}, fmt.Errorf("claim sandbox %s: %w", id, fleet.ErrNotFound)
	case lifecycle.Foreign(sb, c.Owner) != nil:
		return fleet.Task{}, fmt.Errorf("claim: %w", lifecycle.Foreign(sb, c.Owner))
	case sb.State == fleet.SandboxClaimed && sb.Task == e.task.ID && sb.Fence == e.task.Fence:
		return lifecycle.CloneTask(e.task), nil
	case e.task.State.Active():
		return fleet.Task{}, fmt.Errorf("claim sandbox %s: task %s holds sandbox %s: %w", id, e.task.ID, e.task.Sandbox, fleet.ErrConflict)
	case sb.State != fleet.SandboxReady:
		return fleet.Task{}, fmt.Errorf("claim sandbox %s: it is %s: %w", id, sb.State, fleet.ErrConflict)
	}
	e.task, sb = lifecycle.Claimed(e.task, sb, c.Launch, c.At)
	s.put(sb)
	s.arm()
	return lifecycle.CloneTask(e.task), nil
}

// Sandbox implements fleet.SandboxRecords.
func (s *Store) Sandbox(ctx context.Context, id fleet.SandboxID) (fleet.Sandbox, error) {
	if err := s.begin(ctx, "Sandbox"); err != nil {
		return fleet.Sandbox{}, err
	}
	defer s.mu.Unlock()
	sb, ok := s.sandboxes[id]
	if !ok {
		return fleet.Sandbox{}, fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
	}
	return lifecycle.CloneSandbox(sb), nil
}

// Sandboxes implements fleet.SandboxRecords; in order of id.
func (s *Store) Sandboxes(ctx context.Context, goneSince time.Time) ([]fleet.Sandbox, error) {
	if err := s.begin(ctx, "Sandboxes"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Sandbox{}
	for _, id := range slices.Sorted(maps.Keys(s.sandboxes)) {
		sb := s.sandboxes[id]
		if sb.State == fleet.SandboxGone && (goneSince.IsZero() || sb.GoneAt.Before(goneSince)) {
			continue
		}
		out = append(out, lifecycle.CloneSandbox(sb))
	}
	return out, nil
}

// AppendDecision implements fleet.Journal; the fake thins nothing out.
func (s *Store) AppendDecision(ctx context.Context, d fleet.DecisionRecord, policy []byte) (int64, error) {
	if err := s.begin(ctx, "AppendDecision"); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	d = lifecycle.CloneDecision(d)
	d.Seq, d.At, d.Policy = int64(len(s.decisions)+1), lifecycle.Clean(d.At), ""
	if len(policy) > 0 {
		d.Policy = fleet.PolicyDigest(policy)
		s.policies[d.Policy] = slices.Clone(policy)
	}
	s.decisions = append(s.decisions, d)
	return d.Seq, nil
}

// Decision implements fleet.Journal.
func (s *Store) Decision(ctx context.Context, seq int64) (fleet.DecisionRecord, error) {
	if err := s.begin(ctx, "Decision"); err != nil {
		return fleet.DecisionRecord{}, err
	}
	defer s.mu.Unlock()
	if seq < 1 || seq > int64(len(s.decisions)) {
		return fleet.DecisionRecord{}, fmt.Errorf("decision %d: %w", seq, fleet.ErrNotFound)
	}
	return lifecycle.CloneDecision(s.decisions[seq-1]), nil
}

// Decisions implements fleet.Journal; oldest first.
func (s *Store) Decisions(ctx context.Context, f fleet.DecisionFilter) ([]fleet.DecisionRecord, error) {
	if err := s.begin(ctx, "Decisions"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.DecisionRecord{}
	for _, d := range s.decisions {
		if lifecycle.MatchesDecision(f, d) && len(out) < lifecycle.Limit(f.Limit) {
			out = append(out, lifecycle.CloneDecision(d))
		}
	}
	return out, nil
}

// Policy implements fleet.Journal; the fake keeps them all.
func (s *Store) Policy(ctx context.Context, digest string) ([]byte, error) {
	if err := s.begin(ctx, "Policy"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	p, ok := s.policies[digest]
	if !ok {
		return nil, fmt.Errorf("policy %s: %w", digest, fleet.ErrNotFound)
	}
	return slices.Clone(p), nil
}

// AppendEvents implements fleet.Journal.
func (s *Store) AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	if err := s.begin(ctx, "AppendEvents"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := make([]fleet.Event, 0, len(ev))
	for _, e := range ev {
		e = lifecycle.CloneEvent(e)
		e.Seq, e.At = int64(len(s.events)+1), lifecycle.Clean(e.At)
		s.events = append(s.events, e)
		out = append(out, lifecycle.CloneEvent(e))
	}
	poke(s.watchers)
	return out, nil
}

// Events implements fleet.Journal.
func (s *Store) Events(ctx context.Context, f fleet.EventFilter) ([]fleet.Event, error) {
	if err := s.begin(ctx, "Events"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out, limit := []fleet.Event{}, lifecycle.Limit(f.Limit)
	for _, e := range s.events {
		if !lifecycle.MatchesEvent(f, e) {
			continue
		}
		if len(out) == limit {
			if !f.Last {
				break
			}
			out = out[1:]
		}
		out = append(out, lifecycle.CloneEvent(e))
	}
	return out, nil
}

// WakeEvents implements fleet.Journal.
func (s *Store) WakeEvents() (<-chan struct{}, func()) {
	return s.watch(s.watchers)
}

// PutSchedule implements fleet.Schedules.
func (s *Store) PutSchedule(ctx context.Context, sc fleet.Schedule) error {
	if err := s.begin(ctx, "PutSchedule"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if sc.Name == "" {
		return fmt.Errorf("schedule without a name: %w", fleet.ErrInvalid)
	}
	sc.Task = slices.Clone(sc.Task)
	sc.Next, sc.LastAt = lifecycle.Clean(sc.Next), lifecycle.Clean(sc.LastAt)
	s.schedules[sc.Name] = sc
	return nil
}

// DeleteSchedule implements fleet.Schedules.
func (s *Store) DeleteSchedule(ctx context.Context, name string) error {
	if err := s.begin(ctx, "DeleteSchedule"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, ok := s.schedules[name]; !ok {
		return fmt.Errorf("schedule %q: %w", name, fleet.ErrNotFound)
	}
	delete(s.schedules, name)
	return nil
}

// Schedules implements fleet.Schedules; in order of name.
func (s *Store) Schedules(ctx context.Context) ([]fleet.Schedule, error) {
	if err := s.begin(ctx, "Schedules"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	out := []fleet.Schedule{}
	for _, sc := range s.schedules {
		sc.Task = slices.Clone(sc.Task)
		out = append(out, sc)
	}
	slices.SortFunc(out, func(a, b fleet.Schedule) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Setting implements fleet.Settings.
func (s *Store) Setting(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "Setting"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return slices.Clone(s.settings[key]), nil
}

// PutSetting implements fleet.Settings.
func (s *Store) PutSetting(ctx context.Context, key string, value []byte) error {
	if err := s.begin(ctx, "PutSetting"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.settings[key] = append([]byte{}, value...)
	return nil
}

var _ fleet.Store = (*Store)(nil)
