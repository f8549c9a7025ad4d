package fleet

import (
	"context"
	"time"
)

// PoolDemand is the part of a queue that wants one pool. Everything is a
// count of tasks.
type PoolDemand struct {
	Pool     PoolKey
	Backlog  int       // due and not leased
	Delayed  int       // not yet due
	InFlight int       // leased
	Oldest   time.Time // DueAt of the oldest in the backlog; zero when empty
	Arrived  int64     // tasks ever submitted, monotonic
	// Held are those of the backlog that wait for nothing but their tenant's
	// MaxRunning, or its money: more sandboxes would not start them.
	Held int
	// Priority is the highest in the backlog, those held left out; 0 when there
	// is none.
	Priority int
}

// QueueStats is one reading of a queue. A reading that failed is an error,
// never a zero.
type QueueStats struct {
	AsOf     time.Time
	Backlog  int
	Delayed  int
	InFlight int
	Oldest   time.Time
	Arrived  int64
	Dead     int
	Pools    []PoolDemand // sorted by Pool
}

// Lease is the right to run a message until it ends or is extended.
type Lease struct {
	Task    TaskID
	Attempt int
	Fence   int64 // grows with every lease of the same task
	Until   time.Time
}

// Delivery is a leased task.
type Delivery struct {
	Lease Lease
	Task  Task
}

// LeaseRequest asks for tasks that can be claimed now.
type LeaseRequest struct {
	// Slots says how many tasks of each pool can be claimed at once. Tasks of
	// other pools are not leased.
	Slots map[PoolKey]int
	// Visibility is how long the lease holds unless extended; after that the
	// task is delivered again.
	Visibility time.Duration
	// Consumer names the leasing process, for people.
	Consumer string
	// Claim, when set, names the sandbox for a task that is being leased; false
	// leaves it leased only. A queue that is one with the store of the
	// sandboxes makes the claim in the same step, by the rules of
	// SandboxRecords.ClaimSandbox, and delivers the task claimed; where it
	// cannot be made (or by any other queue, which does not call this) the task
	// is delivered queued, to be claimed by ClaimSandbox. After an error
	// nothing is leased or claimed. Must not block, nor call queue or store.
	Claim func(Task) (Claim, bool)
}

// Claim is what a lease claims along with the task.
type Claim struct {
	Sandbox SandboxID
	Launch  Launch
	At      time.Time
	// Owner is who claims it: the sandbox must be theirs. Empty: the control
	// plane itself.
	Owner string
}

// Queue is where tasks wait. Ordering within one call: priority, then fair
// share by tenant weight, then due time. All methods are safe for concurrent
// use and return promptly; errors wrap ErrUnavailable where the backend could
// not be reached.
type Queue interface {
	// Stats reads the signals; O(1) in the length of the queue.
	Stats(ctx context.Context) (QueueStats, error)
	// Lease leases due tasks that fit the request; none is an empty slice.
	Lease(ctx context.Context, r LeaseRequest) ([]Delivery, error)
	// Extend prolongs a lease to now+d; ErrFenced when it was lost.
	Extend(ctx context.Context, l Lease, d time.Duration) (Lease, error)
	// Ack removes a settled task; ErrFenced when the lease was lost.
	Ack(ctx context.Context, l Lease) error
	// Nack returns a task to the queue after delay.
	Nack(ctx context.Context, l Lease, delay time.Duration, why string) error
	// DeadLetter sets a task aside for a person, with the reason.
	DeadLetter(ctx context.Context, l Lease, why string) error
	// Wake delivers a value soon after a task became due, a lease expired, or
	// the queue's state otherwise changed; values may be merged.
	Wake() <-chan struct{}
}

// Share is what one tenant may have of the fleet.
type Share struct {
	Weight     float64 // relative; 0 counts as 1
	MaxRunning int     // most tasks leased or running at once; 0: no bound
	Held       bool    // nothing more is leased: its money is used up; what is leased goes on
}

// Left is how many more tasks may be leased with so many leased or running;
// bounded is false where there is no end.
func (s Share) Left(running int) (n int, bounded bool) {
	switch {
	case s.Held:
		return 0, true
	case s.MaxRunning > 0:
		return max(0, s.MaxRunning-running), true
	}
	return 0, false
}
