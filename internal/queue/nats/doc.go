// Package nats takes tasks from a stream of NATS JetStream, through a durable
// pull consumer that every control plane of the queue shares. It may import
// fleet, connect and the NATS client.
//
// # Mechanism
//
// Facts are from the NATS documentation (docs.nats.io: "JetStream > Consumers",
// "Developing > Model deep dive"), from ADR-13 (pull requests) and ADR-15
// (acknowledgement subjects), and, where these say nothing, from the source of
// nats-server 2.9.10, the oldest version this is tested with.
//
//   - Receive is a pull request with no_wait.
//   - A lease is the consumer's AckWait: a message that is neither acknowledged
//     nor given a sign of life (+WPI) for so long is delivered again. AckWait
//     belongs to the consumer, not to a message, so that leases of other lengths
//     are kept here: longer ones by a +WPI every third of AckWait, shorter ones
//     by giving the message back (-NAK) when they end.
//   - Extend sends a +WPI at once and waits for the server to take it.
//   - Ack, Nack and DeadLetter send +ACK, -NAK with a delay, and +TERM, each as a
//     request, which the server answers once it has taken it.
//   - DeadLetter first stores the message in a stream of its own (DeadStream,
//     made with the first such message), with the reason in Muster-Reason and a
//     Nats-Msg-Id made of stream, sequence and time. A crash before the +TERM
//     brings the message again; its second copy is dropped by the server for an
//     hour, the duplicate window of the stream we make.
//   - Attempt is the server's count of deliveries, less those that were only
//     taken by our own probe (see below).
//   - The receipt is the subject that acknowledges the delivery ($JS.ACK.…). It
//     works from every connection of the account.
//
// # Traits
//
//   - Backlog: num_pending of the consumer. InFlight: num_ack_pending. Both are
//     kept by the server, O(1).
//   - Delayed is false: a message that waits for its retry stays in
//     num_ack_pending, so it counts as in flight. So does one whose lease ended
//     until it is delivered again.
//   - Oldest: the time stamp of the message after the last one delivered, or of
//     the one the probe has. It is read by sequence, once for each message.
//     Zero with several filter subjects.
//   - Arrived: the last sequence of the stream where the consumer takes all of
//     it; with a filter, num_pending plus the count of deliveries, which counts
//     a redelivery as an arrival.
//   - Dead: messages in DeadStream.
//   - Names: the sequence in the stream. Durable: see receipt. Binary: yes.
//   - Push: a pull request for one message (the probe) waits at the server, since
//     work-queue streams allow no second consumer, and since only this tells of
//     messages whose delay or lease ended too. What it gets goes to the next
//     Receive; after at most a second without one it goes back, and the
//     probe pauses until Receive has emptied the queue or a reading finds it
//     empty. A message that went back has been delivered once more than it
//     was tried: other control planes see that in its Attempt, this one does not.
//   - With Config.ReadOnly there is no probe and so no Push, and Dead only where
//     DeadStream is named. Readings ask for information and read one message by
//     its sequence; none of this is seen by a consumer. One that pushes or
//     acknowledges all at once is as good; one without acknowledgements is not.
//
// # Fencing
//
// JetStream removes a message on the acknowledgement of any of its deliveries,
// the first as well as the last, and lists nowhere which are held. So a lost
// lease is told from what is known here: a lease that ended by our clock, a
// receipt that was settled here, a newer delivery seen here; and from what the
// server tells: the consumer's acknowledgement floor, and, on work-queue
// streams, whether the message is still there. What is not seen: a message that
// another control plane was given while this one was cut off for longer than
// AckWait, or stopped, and that is still worked on there. Then both run it, and
// the first to acknowledge wins.
//
// # Crash, restart, outage
//
//   - This process crashes: its messages are delivered again after AckWait, unless
//     the next process extends their receipts before; one that only the
//     new process's probe was given is taken over with the old receipt.
//   - Close gives nothing back, for the same reason.
//   - The server is away, even for longer than AckWait: what is held goes on. A
//     message of a lease that holds is not handed out again by this process; the
//     new delivery continues the lease.
//   - The consumer is deleted: it is made anew (not with Bind), on streams that
//     keep their messages after the last acknowledgement floor that this
//     process has seen. What is held stays held.
//   - The stream is deleted: every call fails with fleet.ErrNotFound until there
//     is one of that name.
//
// Connections are made anew, with credentials and certificates read again, after
// each break; pings find a server that hangs within six seconds, calls within
// four.
package nats
