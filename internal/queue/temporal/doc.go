// Package temporal reads how much waits in a task queue of Temporal: a
// fleet.Signal, from which nothing can be taken, since Temporal hands tasks to
// its own workers. It may import fleet, connect, gRPC and Temporal's API module.
//
// # Mechanism
//
// DescribeTaskQueue with report_stats, once for each kind of task and side by
// side (workflowservice in Temporal's API, and "Task Queue performance" in its
// documentation): approximate_backlog_count, approximate_backlog_age,
// tasks_add_rate. They are made for scaling decisions, and are approximate:
//
//   - The backlog may count tasks that expired, and misses those of sticky
//     queues, which live for seconds.
//   - The backlog of a task queue that no worker has polled, and nothing was
//     added to, for some minutes is unloaded, and may be told as zero until it
//     is loaded again.
//   - Eagerly dispatched activities never pass through a task queue.
//
// # What it can tell
//
// Backlog and the age of its oldest task. Arrived is summed up from the rate at
// which tasks were added in the last 30 s: it counts tasks that a waiting worker
// took at once, too, which the backlog never shows. It begins at zero with the
// process, and a span without readings counts for a minute at most. What workers
// hold is not told, nor is there push.
//
// # What is an error
//
// An answer without statistics, as old servers give it, a negative number, an
// unknown namespace (fleet.ErrNotFound), refused credentials (fleet.ErrDenied),
// and whatever else is no answer (fleet.ErrUnavailable). A task queue cannot be
// missing: Temporal makes them as they are named.
package temporal
