package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/fleet"
)

// Submit submits the task of a schedule, as its user wrote it, under an
// idempotency key.
type Submit func(ctx context.Context, name string, task []byte, key string) (fleet.TaskID, error)

// Events is the part of a journal that a Service writes to.
type Events interface {
	AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error)
}

// Config is what a Service needs.
type Config struct {
	Store  fleet.Schedules
	Submit Submit
	Events Events           // optional
	Logger *slog.Logger     // optional
	Clock  func() time.Time // optional: time.Now
}

const (
	// poll bounds a sleep: schedules written to the store by others, and a
	// clock that was set, are noticed within it.
	poll       = 5 * time.Second
	firstRetry = time.Second
	lastRetry  = time.Minute
	// countMost bounds the counting of missed firings.
	countMost = 1000
)

// Service fires schedules while Run runs.
type Service struct {
	Config
	wake    chan struct{}
	retries map[string]retry
}

// retry is when a failed schedule is tried again.
type retry struct {
	at   time.Time
	wait time.Duration
}

// New returns a service that fires the schedules of a store.
func New(c Config) *Service {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{Config: c, wake: make(chan struct{}, 1), retries: map[string]retry{}}
}

// Prepare checks a schedule that is about to be stored and sets when it fires
// next. Errors are field errors of "cron" or "timezone".
func Prepare(s fleet.Schedule, now time.Time) (fleet.Schedule, error) {
	rule, err := calendar.Parse(s.Cron, s.Timezone)
	if err != nil {
		return s, err
	}
	s.Next = rule.Next(now)
	return s, nil
}

// Wake makes Run look at the schedules at once, after one was changed.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run fires schedules until ctx ends, and returns its error.
func (s *Service) Run(ctx context.Context) error {
	for {
		next, err := s.round(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := poll
		if err != nil {
			s.Logger.Warn("schedules could not be read", "error", err)
		} else if !next.IsZero() {
			wait = min(max(next.Sub(s.Clock()), 0), poll)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// round fires what is due and returns when something is due next.
func (s *Service) round(ctx context.Context) (time.Time, error) {
	all, err := s.Store.Schedules(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("list schedules: %w", err)
	}
	var next time.Time
	for _, sc := range all {
		if sc.Paused {
			continue
		}
		if at := s.one(ctx, sc); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, nil
}

// one fires a schedule if it is due and returns when to look at it again; zero
// when only a change of the schedule can help.
func (s *Service) one(ctx context.Context, sc fleet.Schedule) time.Time {
	now := s.Clock()
	rule, err := calendar.Parse(sc.Cron, sc.Timezone)
	if err != nil {
		s.note(ctx, sc, err)
		return time.Time{}
	}
	if sc.Next.IsZero() {
		done := sc
		done.Next = rule.Next(now)
		return s.save(ctx, sc, done)
	}
	if sc.Next.After(now) {
		return sc.Next
	}
	if r := s.retries[sc.Name]; r.at.After(now) && r.at.Sub(now) <= r.wait {
		return r.at
	}
	return s.fire(ctx, sc, rule, now)
}

// fire submits the newest firing that is due and moves the schedule on.
func (s *Service) fire(ctx context.Context, sc fleet.Schedule, rule calendar.Rule, now time.Time) time.Time {
	at := rule.Last(now)
	done := sc
	done.Next = rule.Next(now)
	if at.Before(sc.Next) || !at.After(sc.LastAt) {
		// The rule, or the clock, was changed: nothing is due by it now.
		return s.save(ctx, sc, done)
	}
	missed := countBetween(rule, sc.Next, at)
	id, err := s.Submit(ctx, sc.Name, sc.Task, Key(sc.Name, at))
	switch {
	case err == nil:
		done.LastAt, done.LastTask, done.LastError = at, id, ""
	case errors.Is(err, fleet.ErrConflict):
		// It was submitted before a crash, and means something else by now.
		done.LastAt, done.LastError = at, err.Error()
	case errors.Is(err, fleet.ErrInvalid):
		done.LastError = fmt.Sprintf("not submitted at %s: %v", at.Format(time.RFC3339), err)
		s.tell(ctx, now, "schedule_failed", fmt.Sprintf("schedule %s: %s", sc.Name, done.LastError), "")
	default:
		s.note(ctx, sc, err)
		return s.later(sc.Name, now)
	}
	if next := s.save(ctx, sc, done); next != done.Next {
		return next
	}
	if missed > 0 {
		s.tell(ctx, now, "schedule_missed", missedReason(sc.Name, missed, sc.Next, at), id)
	}
	if err == nil {
		s.tell(ctx, now, "schedule_fired", fmt.Sprintf("schedule %s was due at %s", sc.Name, at.Format(time.RFC3339)), id)
	}
	return done.Next
}

// Key is the idempotency key of a firing.
func Key(name string, at time.Time) string { return fmt.Sprintf("schedule/%s/%d", name, at.Unix()) }

// countBetween counts the firings in [from, to), up to countMost.
func countBetween(rule calendar.Rule, from, to time.Time) int {
	n := 0
	for at := from; n < countMost && !at.IsZero() && at.Before(to); at = rule.Next(at) {
		n++
	}
	return n
}

func missedReason(name string, n int, first, fired time.Time) string {
	count := fmt.Sprint(n)
	if n == countMost {
		count = "at least " + count
	}
	return fmt.Sprintf("schedule %s missed %s earlier firings since %s, while nothing ran; only the newest, of %s, was submitted",
		name, count, first.Format(time.RFC3339), fired.Format(time.RFC3339))
}

// later is when a schedule that failed is tried again.
func (s *Service) later(name string, now time.Time) time.Time {
	r := s.retries[name]
	r.wait = min(max(2*r.wait, firstRetry), lastRetry)
	r.at = now.Add(r.wait)
	s.retries[name] = r
	return r.at
}

// save writes what firing changed, unless someone changed or deleted the
// schedule meanwhile: then theirs stands and is looked at at once.
func (s *Service) save(ctx context.Context, was, done fleet.Schedule) time.Time {
	now := s.Clock()
	cur, err := s.current(ctx, was.Name)
	if err == nil && (cur == nil || !sameRule(*cur, was)) {
		delete(s.retries, was.Name)
		return now
	}
	if err == nil {
		done.Paused = cur.Paused
		err = s.Store.PutSchedule(ctx, done)
	}
	if err != nil {
		s.Logger.Warn("schedule could not be written", "schedule", was.Name, "error", err)
		return s.later(was.Name, now)
	}
	delete(s.retries, was.Name)
	return done.Next
}

func (s *Service) current(ctx context.Context, name string) (*fleet.Schedule, error) {
	all, err := s.Store.Schedules(ctx)
	if err != nil {
		return nil, err
	}
	for _, sc := range all {
		if sc.Name == name {
			return &sc, nil
		}
	}
	return nil, nil
}

func sameRule(a, b fleet.Schedule) bool {
	return a.Cron == b.Cron && a.Timezone == b.Timezone && string(a.Task) == string(b.Task) && a.Next.Equal(b.Next)
}

// note records why a schedule did not fire, once for each different reason.
func (s *Service) note(ctx context.Context, sc fleet.Schedule, err error) {
	if sc.LastError == err.Error() || ctx.Err() != nil {
		return
	}
	s.Logger.Warn("schedule did not fire", "schedule", sc.Name, "error", err)
	s.tell(ctx, s.Clock(), "schedule_failed", fmt.Sprintf("schedule %s did not fire: %v", sc.Name, err), "")
	cur, cerr := s.current(ctx, sc.Name)
	if cerr != nil || cur == nil || !sameRule(*cur, sc) {
		return
	}
	cur.LastError = err.Error()
	if err := s.Store.PutSchedule(ctx, *cur); err != nil {
		s.Logger.Warn("schedule could not be written", "schedule", sc.Name, "error", err)
	}
}

func (s *Service) tell(ctx context.Context, at time.Time, kind, reason string, task fleet.TaskID) {
	if s.Events == nil {
		return
	}
	if _, err := s.Events.AppendEvents(ctx, []fleet.Event{{At: at, Kind: kind, Layer: "tasks", Task: task, Reason: reason}}); err != nil {
		s.Logger.Warn("event could not be written", "kind", kind, "error", err)
	}
}
