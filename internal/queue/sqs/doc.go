// Package sqs takes work from a queue of Amazon SQS, standard or FIFO. It may
// import fleet, connect and the AWS SDK.
//
// It is tested against a fake of ours, and against moto where that is
// installed, never against AWS. What follows is from the Amazon SQS API
// Reference (named by action) and the Amazon SQS Developer Guide.
//
// # What SQS can tell
//
//   - Backlog, in flight, delayed: ApproximateNumberOfMessages, …NotVisible and
//     …Delayed (GetQueueAttributes): one request, whatever the length. They are
//     approximate, and may be off for a minute after a change.
//   - Dead: ApproximateNumberOfMessages of the dead-letter queue, read every 5 s.
//     A queue without one has none.
//   - Oldest: only from CloudWatch (ApproximateAgeOfOldestMessage, in "Available
//     CloudWatch metrics for Amazon SQS"), where Config.CloudWatch asks for it:
//     a value a minute, one to three minutes late, none for a queue that was
//     asleep. It leaves out messages received three times and more.
//   - Arrived: not told.
//   - Names: the MessageId stays the same at every delivery. Durable: a receipt
//     handle is good in any process. Binary: a body is text, of the characters
//     that SendMessage lists. Fees: each request costs.
//
// # Push
//
// SQS pushes nothing, but a ReceiveMessage may wait 20 s for a message, which
// it then takes. While nothing is there to receive one such request is under
// way, for one message. What it brings wakes the reader, and the next Receive
// returns it without asking SQS; the others follow by ordinary receives. Not
// asked for, it goes back with ChangeMessageVisibility 0, after 4.5 s where a
// sandbox had waited, else 1 s; until then Stats counts it in the backlog. Each
// delivery counts against maxReceiveCount, so that no second message is taken
// while one waits, nor within 90 s of one that went back except for a Receive
// that found nothing, nor while others have messages in flight that may be held
// the same way. Attempt leaves out deliveries of this kind of this process.
//
// # Leases
//
//   - Receive: ReceiveMessage with a VisibilityTimeout, in batches of ten. From a
//     FIFO queue one message a call: the messages of one group that one call
//     returns are to be worked off in order, which sandboxes beside one another
//     would not. While one is in flight SQS holds back the rest of its group.
//   - Extend: ChangeMessageVisibility. SQS holds a message for 12 h from its
//     receive, all extensions counted: nearer than that to the end Extend returns
//     the time it got, and at the end ErrFenced. The receipt carries when the
//     message was received, for a process that did not receive it.
//   - Ack: DeleteMessage tells nothing: it succeeds for a message that is gone
//     ("if you use an old ReceiptHandle, the request will succeed, but the
//     message might not be deleted"). So ChangeMessageVisibility comes first,
//     which fails for a message not in flight, and makes it hold for at least
//     30 s more. What this process knows to be over is refused without a request.
//   - Nack: ChangeMessageVisibility with the delay. SQS counts the message as in
//     flight until then; Stats counts those of this process as delayed.
//   - DeadLetter: SendMessage to the dead-letter queue, with the attribute
//     muster.reason, then DeleteMessage. SQS itself moves a message that was
//     received more than maxReceiveCount times (SetQueueAttributes).
//   - Attempt: ApproximateReceiveCount. At: SentTimestamp.
//
// Times of leases are ours, reckoned from before the request was sent, so that
// a lease never ends at SQS before it does here, whatever the clocks show; a
// receipt's age for the 12 h is the one thing that is compared across
// processes.
//
// Calls for single messages travel in batches of up to ten: the first at once,
// those that come while it is under way together.
//
// # Crash and restart
//
// A process that dies keeps nothing from anyone: its messages come back when
// their visibility ends, what its long poll had taken within a minute. One that
// restarts extends and settles by the receipts it kept. Between sending to the
// dead-letter queue and deleting, a crash leaves a message in both; within five
// minutes a FIFO queue drops the second copy. A standard queue may deliver a
// message twice even so ("at-least-once delivery" in the Developer Guide).
package sqs
