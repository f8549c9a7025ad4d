// Package schedule submits tasks at the times of their schedules (layer L2).
//
// A firing is submitted under the idempotency key "schedule/<name>/<unix time
// of the firing>" before the schedule's record is moved on, so that a crash
// between the two, or two clocks that disagree, lead to one task.
//
//   - After a time in which nothing ran (downtime, a suspended machine, a clock
//     set forward) the newest missed firing is submitted once; the earlier ones
//     are noted in an event and not made up for.
//   - A clock set back fires nothing a second time.
//   - A submission that fails is tried again, after one second and then twice
//     as long each time up to a minute, and the error stands in the schedule's
//     LastError; one that can never be accepted waits for its next time.
//
// It imports fleet and calendar.
package schedule
