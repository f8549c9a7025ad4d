package plan

import (
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// Observation is everything a decision may know about the world. Pools,
// nodes and the pools of a queue are sorted by key; each key appears once.
type Observation struct {
	Queues []Queue `json:"queues"`
	Pools  []Pool  `json:"pools"`
	Nodes  []Node  `json:"nodes"`
	// NodesError says that the nodes could not be read; Nodes is then the last
	// reading.
	NodesError string `json:"nodesError,omitempty"`
	// NodeLead is measured from the request of a node to ready. NodesStarted and
	// NodesFailed count boots that ended well and badly; monotonic in one life of
	// the process. NodeFailure is the last one, in words.
	NodeLead     fleet.Lead `json:"nodeLead,omitzero"`
	NodesStarted int64      `json:"nodesStarted,omitempty"`
	NodesFailed  int64      `json:"nodesFailed,omitempty"`
	NodeFailure  string     `json:"nodeFailure,omitempty"`
	// Outlook is what is expected of the next boot time; nil: nothing is known.
	Outlook *forecast.Outlook `json:"outlook,omitempty"`
	// Begun counts tasks that started, Late those of them that waited longer
	// than the objective; monotonic in one life of the process.
	Begun int64 `json:"begun,omitempty"`
	Late  int64 `json:"late,omitempty"`
	// Floors are the calendar's windows that are open or open soon. They are
	// part of the observation so that a decision made again does not depend on
	// the time-zone database.
	Floors []Floor `json:"floors,omitempty"`
	Spend  Spend   `json:"spend"`
}

// Queue is one reading of one queue. With Error the reading failed, and the
// rest is of the last one that did not: demand that was there is still provided
// for.
type Queue struct {
	Name  string    `json:"name"`
	AsOf  time.Time `json:"asOf"`
	Error string    `json:"error,omitempty"`
	Pools []Demand  `json:"pools,omitempty"`
}

// Demand is what one queue wants of one pool, in tasks.
type Demand struct {
	Pool     fleet.PoolKey `json:"pool"`
	Backlog  int           `json:"backlog"`
	Delayed  int           `json:"delayed"`
	InFlight int           `json:"inFlight"`
	Oldest   time.Time     `json:"oldest,omitzero"`
	Arrived  int64         `json:"arrived"`
	// Held are those of the backlog that wait for nothing but the cap of their
	// tenant: no sandbox would help them.
	Held int `json:"held,omitempty"`
	// Priority is the highest among the waiting; 0 where it is not known.
	Priority int `json:"priority,omitempty"`
}

// Pool is what there is of one pool, in sandboxes.
type Pool struct {
	Key      fleet.PoolKey `json:"key"`
	Template string        `json:"template"`
	// Unknown: tasks wait for it, but no template makes it any more.
	Unknown  bool   `json:"unknown,omitempty"`
	Revision string `json:"revision"`
	Size     Size   `json:"size"`

	Ready     int `json:"ready"`
	Starting  int `json:"starting"`
	Running   int `json:"running"`   // claimed by a task
	Releasing int `json:"releasing"` // on the way out; holds a slot, serves nobody

	// Idle are ready ones that could be parted with, the first to go first
	// (stale revisions, then the oldest); at most MaxIdle, so that an observation
	// stays small. Draining are those on the way out that can still be taken back,
	// the youngest first.
	Idle     []Idle `json:"idle,omitempty"`
	Draining []Idle `json:"draining,omitempty"`

	Lead fleet.Lead `json:"lead"` // request to ready
	// Started and Failed count starts that ended well and badly, Finished
	// tasks that gave their sandbox back; monotonic in one life of the process.
	Started  int64 `json:"started"`
	Failed   int64 `json:"failed"`
	Finished int64 `json:"finished"`
	// Proven: a start of this revision has succeeded at some time.
	Proven        bool             `json:"proven,omitempty"`
	Failure       string           `json:"failure,omitempty"` // the last one, in words
	FailureReason fleet.TaskReason `json:"failureReason,omitempty"`
	// Seasonal is the count of arrivals in one lead time that the hour-of-week
	// profile expects; it may only raise the stock.
	Seasonal int `json:"seasonal,omitempty"`
}

// MaxIdle is how many idle sandboxes of a pool an observation names; more are
// not looked at. It bounds what one decision can drain.
const MaxIdle = 64

// Size is what one sandbox takes of a node.
type Size struct {
	MilliCPU    int64 `json:"milliCPU"`
	MemoryBytes int64 `json:"memoryBytes"`
	DiskBytes   int64 `json:"diskBytes"`
}

// Idle is a sandbox that can be named in an action.
type Idle struct {
	ID      fleet.SandboxID `json:"id"`
	Node    fleet.NodeID    `json:"node,omitempty"`
	Created time.Time       `json:"created"`
	Since   time.Time       `json:"since"` // ready, or draining, since then
	// Stale: of another revision than the template's. Unfit: made with another
	// isolation than the template asks for now (network, mounts, runtime), so
	// that no task may get it.
	Stale bool `json:"stale,omitempty"`
	Unfit bool `json:"unfit,omitempty"`
}

// Node is one machine and what is on it.
type Node struct {
	ID       fleet.NodeID    `json:"id"`
	State    fleet.NodeState `json:"state"`
	Slots    int             `json:"slots"` // 0: bounded by the resources alone
	Capacity Size            `json:"capacity"`
	Used     int             `json:"used"` // sandboxes in any state
	UsedSize Size            `json:"usedSize"`
	Running  int             `json:"running"` // of them, with a task
	Starting int             `json:"starting,omitempty"`
	Since    time.Time       `json:"since"` // requested, or empty since
	// Requested is when it was asked for, from when on it is paid.
	Requested time.Time `json:"requested,omitzero"`
	// Residual is how long its longest task is expected to go on; see Prefer.
	Residual time.Duration `json:"residual,omitempty"`
}

// Floor is a window in which at least Min sandboxes of a template are kept
// warm.
type Floor struct {
	Template string    `json:"template"`
	Name     string    `json:"name"` // as people know it: the cron expression and zone
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
	Min      int       `json:"min"`
}

// Spend is what the ledger says, in micro-USD, of the periods of UTC that now is
// in.
type Spend struct {
	HourMicroUSD  int64 `json:"hourMicroUSD"`
	DayMicroUSD   int64 `json:"dayMicroUSD"`
	MonthMicroUSD int64 `json:"monthMicroUSD,omitempty"`
	// NodeHour is the mean price of the nodes there are, for an hour; 0: that of
	// the policy stands in.
	NodeHour int64 `json:"nodeHour,omitempty"`
	// Unknown says that the ledger could not be read yet: a budget then binds,
	// since what is not known is not nothing.
	Unknown bool `json:"unknown,omitempty"`
}
