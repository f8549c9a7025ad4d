// Package sim simulates a fleet on a virtual clock (layer L3): one trace, one
// policy, one event heap, integer milliseconds. It may import packages fleet,
// plan, forecast, cost and dispatch, and its own family below it; it reads no
// clock and no global random numbers, so that a seed gives a result.
//
// # Model
//
// A node is paid from its request to its release, and for a least time
// (60 s); it is in service one boot (45 s) after the request. A sandbox takes
// one of its slots (8) from the start on, is ready one cold start (5 s) later,
// runs one task, and is gone. Nothing migrates. New sandboxes go to the
// fullest node (best fit). A task gets the sandbox that has been ready longest
// or waits, first come, first served; its wait ends with its first
// instruction. All events of one instant happen before one decision.
//
// [Simulate] runs "muster", package plan itself behind an adapter, or a rival;
// rivals set how many sandboxes there should be, and the world does what
// Kubernetes would, kindly: see [World.reconcile]. Memory does not depend on
// the length of a trace: waits go into a histogram, series into a fixed number
// of parts, and the trace is a stream.
//
// # The lower bound
//
// "clairvoyant" is no policy but a bound: no policy with which every task
// starts the moment it arrives costs less, whatever it knows. It is a
// level-set ski rental with free repacking and the boot as switching cost,
// tightened by the least bill where the whole fleet goes to zero.
//
// Let D(t) be the slots held, each from one cold start before a task's arrival
// until the task's end, and N(t) = ceil(D(t)/slots). Take any such policy, and
// let R(t) be its nodes in service.
//
//  1. R >= N at all times: a task that starts the moment it arrives has its
//     sandbox ready by then, which has held a slot for a cold start, and each
//     sandbox serves one task. (A policy with which tasks wait for the cold
//     start holds the slot as long, only later.)
//  2. A node in service for an interval of length L was paid for at least
//     boot + L. So the policy pays at least the integral of R, plus boot times
//     the number of intervals, which is no less than the upward variation
//     V(R) = the sum of all rises of R.
//  3. Both decompose by level: the integral of R is the sum over k >= 1 of the
//     length of {R >= k}, and V(R) the sum over k of the number of intervals
//     {R >= k} is made of (coarea formula; R takes whole numbers). And
//     {R >= k} covers {N >= k}.
//  4. So each level can be minimized alone: the cheapest cover of the set
//     {N >= k} by intervals that cost boot + length each is that set with
//     every gap shorter than boot filled. That costs the length of the set, one
//     boot for its first interval, and min(gap, boot) for each gap: ski rental
//     with the future known. Which node a task is on does not matter here:
//     repacking is free.
//
// The least bill M cannot be asked of each level: nodes in service over
// [0,10) and [5,15) make level 1 [0,15) and level 2 [5,10), and a least bill
// for both levels would exceed what the two nodes cost. It holds for clusters.
// Let the whole fleet be unneeded for a pause of at least boot + 2(M-boot). A
// node kept through it pays at least the pause; giving it up and booting
// another, each paid for at least M, pays no more. So some cheapest policy
// keeps no node through such pauses, clusters between them add up, and each
// costs at least M times the most nodes it needs at once. The bound takes the
// larger of that and of the levels' sum, for each cluster that lies in the
// window whole.
//
// In an evaluated window [open, close) only what is paid inside counts. For a
// rise at t that is min(t-open, gap, boot): a node held, or booted, over that
// time. Random boots and cold starts enter with the shortest time they can
// take, failures and stock-outs not at all; each can only cost a policy more.
//
// A policy with which tasks wait may cost less than the bound, since waiting
// flattens demand.
package sim
