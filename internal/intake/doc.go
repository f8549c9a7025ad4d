// Package intake takes tasks from a queue outside Muster: it makes a fleet.Queue
// of an outside fleet.Source and the embedded queue, in which a message becomes
// a task once a sandbox is free for it.
//
//	outside queue ──Receive──▶ decode ──▶ store: task, queued, holds its message
//	     ▲   (as many as sandboxes are free)          │ lease, claim, run, settle
//	     └── Ack, DeadLetter ◀── task is final ◀──────┘
//	          Extend, while it is not
//
// What is waiting outside stays there, for other consumers too, and counts as
// backlog; what was taken is a task like any other, with priorities, fair share,
// retries and fencing of the embedded queue. The message is leased, and the lease
// extended, until its task is final, so that a control plane that is lost with
// its disk loses no task: the message comes again, to another.
//
// A delivery is matched to the task that the message has become already, by the
// backend's name for it or, where it gives none, by its content (equal messages
// can stand for each other). So a redelivery after a lost connection or a restart
// does not run a task twice, and is answered at once when the task is over:
//
//	new ─▶ held ◀──▶ detached (the lease was lost; the task goes on)
//	         │           │ delivered again: held, or settled when it is final
//	         ▼           ▼
//	      settled (acknowledged or set aside; forgotten)
//
// A message that cannot be read goes to the dead letters with the reason, and
// never stops the queue. The reading of the outside queue is kept fresh in the
// background, faster when something moves; a failed one is passed on as such.
//
// It may import fleet only.
package intake
