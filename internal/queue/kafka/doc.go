// Package kafka takes tasks from a topic of Apache Kafka, as a member of a
// consumer group. It may import fleet, connect and franz-go.
//
// # Leases on a log
//
// Kafka has no leases: it gives whole partitions to members of a group and
// keeps one committed offset for each (Kafka documentation, Design, "The
// Consumer"). The adapter adds what is missing:
//
//		fetched → ready → held → settling → settled
//		            ↑       │ lease ended, or nack (→ delayed until due)
//		            └───────┘
//
//	  - Receive hands out from at most 256 records fetched ahead, or 16 MiB.
//	    Holding them keeps nobody waiting: their partition is ours anyway. They
//	    count as backlog.
//	  - Extend and Nack are kept in memory, on the monotonic clock of this
//	    process. They fail once the group's coordinator was silent for half a
//	    session, since after a whole one others may have the partition.
//	  - Ack commits, and returns when the broker has it. One commit at a time is
//	    on its way and takes along whatever came up during the one before.
//	  - DeadLetter writes the record with its key and headers and the reason to
//	    the dead topic (acks=all), then settles it. A crash between the two
//	    writes it twice.
//
// # What a commit says
//
// Tasks end out of order, so the committed offset stands while the first of
// them runs, be it for hours. The offset's metadata (a text kept with it, of at
// most 4096 bytes: offset.metadata.max.bytes in the broker configuration) holds
// the spans settled above it, up to where records were handed out, and how
// often those were that came more than once. So after a crash or a handover
// exactly what is not settled comes again, and with its count: one that a crash
// interrupted is delivery 2 or higher. What a crash loses is a count that no
// commit has followed yet, milliseconds old, and delays of Nack: those come at
// once. The notes hold over a thousand spans a partition; with more, the
// highest are left out and would be delivered again. The ID (topic, identity of
// the topic, partition, offset) is the same then, so that a reader who keeps
// records drops what he settled before.
//
// # Several control planes
//
// Partitions are balanced cooperatively (KIP-429): only those that move stop. A
// partition that is to move hands out nothing more and waits, for Handover,
// until its leases have ended; then those that are left are lost: ErrFenced,
// and delivered to the new owner. A member that falls silent loses its
// partitions after Session. With Member set (KIP-345), a restart within Session
// moves nothing. Each record is at one member only, however idle the others.
//
// # What it can tell
//
//   - Backlog: last offsets less what is settled, in flight and delayed. What
//     compaction removed in the middle, and transaction markers, count until
//     the reading has passed them.
//   - InFlight, Delayed: our own exactly; of other members what they committed
//     as handed out and not settled, so that their delayed count as in flight,
//     and so do messages of one that crashed until they are delivered again.
//   - Oldest: the record's timestamp (the producer's clock, unless the topic
//     has message.timestamp.type=LogAppendTime) of what waits in our own
//     partitions; of others' it is not known.
//   - Arrived: the sum of last offsets, which grows with every record.
//   - Dead: records in the dead topic, until its retention removes them.
//   - Push: the fetch itself waits at the broker (fetch.min.bytes, KIP-74).
//   - Durable: no. A lease is this process's; another takes the message anew.
//
// Records that retention removed before anybody had them are no backlog; they
// are logged as a warning. A topic that is deleted and made anew is noticed by
// Stats; the group is then joined anew, from the new topic's first record. So it
// is with a log that lost its end (an unclean election of a leader): all that
// it still has is delivered again, under the same IDs.
//
// # Read only
//
// With ReadOnly others work the topic off, and the adapter is a client without
// a group: it asks for offsets and does nothing else. Backlog is the end offset
// (the high watermark) less the group's committed offset: it holds what is being
// worked on and not committed, records of open transactions, markers, and what
// compaction removed. What the notes of another Muster say is settled is none.
// A partition without a commit counts from its oldest record, which is where
// this adapter's own groups begin. Arrived is as above; Dead is told where a
// dead topic is given; nothing is pushed.
//
// Share groups (KIP-932, Kafka 4.2) have leases of their own; they are not used,
// since a lock holds for at most a minute unless brokers are configured
// otherwise, and after five deliveries a record is dropped without a trace.
package kafka
