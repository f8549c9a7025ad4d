package fleet

import (
	"context"
	"time"
)

const (
	// ConsumerSilence is after how long a consumer that tells nothing is dead.
	ConsumerSilence = 15 * time.Second
	// SettingConsumersHalt is "1" while no consumer shall lease anything.
	SettingConsumersHalt = "consumers.halt"
)

// Consumer is a process that creates, drives and ends the sandboxes it owns,
// and leases the tasks for them, as it last told.
type Consumer struct {
	Name    string `json:"name"`    // unique among those of a fleet, also over time
	Address string `json:"address"` // host:port at which runners and the API reach it
	// Leaving: it leases nothing more and wants its sandboxes taken over.
	Leaving bool  `json:"leaving,omitempty"`
	Leased  int64 `json:"leased"`  // tasks leased since it started
	Running int   `json:"running"` // tasks now
	// ClaimP99 is the 99th percentile from lease to accepted over the last
	// minutes; 0: none yet.
	ClaimP99 time.Duration `json:"claimP99"`
	// Age is the time since it told, by the store's clock; set on reading.
	Age time.Duration `json:"-"`
}

// Consumers keeps what the consumers of a fleet tell of themselves.
type Consumers interface {
	// PutConsumer writes a consumer whole, as of now; ErrInvalid without a name.
	PutConsumer(ctx context.Context, c Consumer) error
	// DeleteConsumer forgets one; it is no error when it is not there.
	DeleteConsumer(ctx context.Context, name string) error
	// Consumers lists all, by name.
	Consumers(ctx context.Context) ([]Consumer, error)
}

// SharedRecords are records of sandboxes that several processes write: the
// leader gives orders, each sandbox's owner carries them out.
type SharedRecords interface {
	SandboxRecords
	// SwapSandbox writes a sandbox whole if its record is in this state (empty:
	// in any but gone) and has this owner, and if nothing of a claim is
	// overlooked, as with PutSandbox; ErrConflict otherwise, ErrNotFound when
	// there is no record.
	SwapSandbox(ctx context.Context, s Sandbox, state SandboxState, owner string) error
	// TakeOver gives a sandbox to another owner. When a running task is in it,
	// the fence of both is raised by one, the attempt stays, and RunFence keeps
	// what the runner was given: from then on nothing of the former owner
	// counts. The task is zero when none is in it. ErrConflict when from is not
	// the owner or the sandbox is gone.
	TakeOver(ctx context.Context, id SandboxID, from, to string) (Sandbox, Task, error)
	// WakeSandboxes delivers a value soon after a record of a sandbox was
	// written by any process; values may be merged, and may be lost with the
	// connection to the store. Each caller gets a channel of its own; release
	// frees it.
	WakeSandboxes() (wake <-chan struct{}, release func())
}
