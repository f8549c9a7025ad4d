package metered

import (
	"context"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Told hears of a call: its name, of a fixed set, how long it took, and its
// error. It must not block and may be called by several at once.
type Told func(op string, took time.Duration, err error)

// Store is a fleet.Store that is measured.
type Store struct {
	fleet.Store
	told     Told
	happened func(kind string)
}

// New returns s, measured. happened hears of each event that was journaled
// through it, by its kind; it may be nil.
func New(s fleet.Store, told Told, happened func(kind string)) *Store {
	return &Store{Store: s, told: told, happened: happened}
}

// call measures f.
func call[T any](told Told, op string, f func() (T, error)) (T, error) {
	began := time.Now()
	v, err := f()
	told(op, time.Since(began), err)
	return v, err
}

// do measures an f that returns nothing else.
func do(told Told, op string, f func() error) error {
	_, err := call(told, op, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// Submit implements fleet.Tasks.
func (s *Store) Submit(ctx context.Context, tasks []fleet.Task) ([]fleet.Task, error) {
	return call(s.told, "submit", func() ([]fleet.Task, error) { return s.Store.Submit(ctx, tasks) })
}

// Task implements fleet.Tasks.
func (s *Store) Task(ctx context.Context, id fleet.TaskID) (fleet.Task, error) {
	return call(s.told, "task", func() (fleet.Task, error) { return s.Store.Task(ctx, id) })
}

// Tasks implements fleet.Tasks.
func (s *Store) Tasks(ctx context.Context, f fleet.TaskFilter) ([]fleet.Task, error) {
	return call(s.told, "tasks", func() ([]fleet.Task, error) { return s.Store.Tasks(ctx, f) })
}

// Change implements fleet.Tasks.
func (s *Store) Change(ctx context.Context, id fleet.TaskID, fence int64, c fleet.Change) error {
	return do(s.told, "change", func() error { return s.Store.Change(ctx, id, fence, c) })
}

// Settle implements fleet.Tasks.
func (s *Store) Settle(ctx context.Context, id fleet.TaskID, fence int64, st fleet.Settlement) (fleet.Task, error) {
	return call(s.told, "settle", func() (fleet.Task, error) { return s.Store.Settle(ctx, id, fence, st) })
}

// Retry implements fleet.Tasks.
func (s *Store) Retry(ctx context.Context, id fleet.TaskID, fence int64, due time.Time, why string) (fleet.Task, error) {
	return call(s.told, "retry", func() (fleet.Task, error) { return s.Store.Retry(ctx, id, fence, due, why) })
}

// Cancel implements fleet.Tasks.
func (s *Store) Cancel(ctx context.Context, id fleet.TaskID, by string, now time.Time) (fleet.Task, error) {
	return call(s.told, "cancel", func() (fleet.Task, error) { return s.Store.Cancel(ctx, id, by, now) })
}

// PutSandbox implements fleet.SandboxRecords.
func (s *Store) PutSandbox(ctx context.Context, b fleet.Sandbox) error {
	return do(s.told, "put_sandbox", func() error { return s.Store.PutSandbox(ctx, b) })
}

// SwapSandbox implements fleet.SharedRecords.
func (s *Store) SwapSandbox(ctx context.Context, b fleet.Sandbox, state fleet.SandboxState, owner string) error {
	return do(s.told, "put_sandbox", func() error { return s.Store.SwapSandbox(ctx, b, state, owner) })
}

// ClaimSandbox implements fleet.SandboxRecords.
func (s *Store) ClaimSandbox(ctx context.Context, l fleet.Lease, c fleet.Claim) (fleet.Task, error) {
	return call(s.told, "claim", func() (fleet.Task, error) { return s.Store.ClaimSandbox(ctx, l, c) })
}

// Sandboxes implements fleet.SandboxRecords.
func (s *Store) Sandboxes(ctx context.Context, goneSince time.Time) ([]fleet.Sandbox, error) {
	return call(s.told, "sandboxes", func() ([]fleet.Sandbox, error) { return s.Store.Sandboxes(ctx, goneSince) })
}

// AppendDecision implements fleet.Journal.
func (s *Store) AppendDecision(ctx context.Context, d fleet.DecisionRecord, policy []byte) (int64, error) {
	return call(s.told, "journal", func() (int64, error) { return s.Store.AppendDecision(ctx, d, policy) })
}

// AppendEvents implements fleet.Journal.
func (s *Store) AppendEvents(ctx context.Context, ev []fleet.Event) ([]fleet.Event, error) {
	out, err := call(s.told, "journal", func() ([]fleet.Event, error) { return s.Store.AppendEvents(ctx, ev) })
	if err == nil && s.happened != nil {
		for i := range ev {
			s.happened(ev[i].Kind)
		}
	}
	return out, err
}

// Events implements fleet.Journal.
func (s *Store) Events(ctx context.Context, f fleet.EventFilter) ([]fleet.Event, error) {
	return call(s.told, "events", func() ([]fleet.Event, error) { return s.Store.Events(ctx, f) })
}

// PutSetting implements fleet.Settings.
func (s *Store) PutSetting(ctx context.Context, key string, value []byte) error {
	return do(s.told, "put_setting", func() error { return s.Store.PutSetting(ctx, key, value) })
}

// Post implements fleet.Ledger.
func (s *Store) Post(ctx context.Context, p fleet.Posting) error {
	return do(s.told, "post", func() error { return s.Store.Post(ctx, p) })
}

// Ping implements fleet.Store.
func (s *Store) Ping(ctx context.Context) error {
	return do(s.told, "ping", func() error { return s.Store.Ping(ctx) })
}

// Queue is a fleet.Queue that is measured.
type Queue struct {
	fleet.Queue
	told Told
}

// NewQueue returns q, measured.
func NewQueue(q fleet.Queue, told Told) *Queue { return &Queue{q, told} }

// Stats implements fleet.Queue.
func (q *Queue) Stats(ctx context.Context) (fleet.QueueStats, error) {
	return call(q.told, "queue_stats", func() (fleet.QueueStats, error) { return q.Queue.Stats(ctx) })
}

// Lease implements fleet.Queue.
func (q *Queue) Lease(ctx context.Context, r fleet.LeaseRequest) ([]fleet.Delivery, error) {
	return call(q.told, "lease", func() ([]fleet.Delivery, error) { return q.Queue.Lease(ctx, r) })
}

// Extend implements fleet.Queue.
func (q *Queue) Extend(ctx context.Context, l fleet.Lease, d time.Duration) (fleet.Lease, error) {
	return call(q.told, "extend", func() (fleet.Lease, error) { return q.Queue.Extend(ctx, l, d) })
}

// Nack implements fleet.Queue.
func (q *Queue) Nack(ctx context.Context, l fleet.Lease, delay time.Duration, why string) error {
	return do(q.told, "nack", func() error { return q.Queue.Nack(ctx, l, delay, why) })
}
