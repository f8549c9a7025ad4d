// Package redis is the adapter of lists and streams in Redis (5 and later for
// lists, 7.0 and later for streams) and Valkey: a single server, one behind
// Sentinel, or a cluster. It may import fleet, connect and the SDK.
//
// # What is kept where
//
// A list has no leases. A message that Receive takes from a list is moved, with
// a name that it keeps, into keys of our own beside the list; a script on the
// server does it in one step, so that there is no moment at which the message is
// nowhere, nor one at which two consumers have it. With the queue "agents" the
// keys begin with "{agents}:muster:", the hash tag putting them into the list's
// slot of a cluster [cluster-spec]:
//
//	bodies  hash: ID to body, from before it leaves the list until it is settled
//	tries   hash: ID to number of deliveries
//	leases  hash: ID to the token of the delivery and who has it
//	until   sorted set: ID by the time its lease ends
//	later   sorted set: ID by the time its delay ends (nack)
//	again   sorted set: ID of what came back, in that order; goes before the list
//	counts  hash: how many were taken from the list, and how many came back
//	why     hash: SHA-1 of a dead body to the reason, as JSON
//
// A message of a stream stays in the stream and in the consumer group's list of
// pending entries until it is settled; its ID is its name, the server counts its
// deliveries [xreadgroup]. Only leases, until, later, again and counts are kept
// beside it, named by the group as well: the group alone knows how long an entry
// has been idle, not how long it was meant to be.
//
//	          receive                 ack
//	list ───────────────► leased ───────────► gone
//	stream                 │  ▲ │ dead letter
//	   nack with a delay   │  │ └───────────► dead
//	           ┌───────────┤  │
//	           ▼           │  │ receive
//	         later ──────► again
//	              delay    ▲ nack, or the lease ended
//	              ended    └ (seen by any Source of the queue)
//
// All times are the server's (TIME in the script); since Redis 5 scripts that
// write after reading the clock are replicated by their effects [eval]. No
// process needs the right time.
//
// Extend, Ack, Nack and DeadLetter compare the token of the delivery, in the
// same script that acts. Of a stream they compare the pending entry's owner too,
// so that an entry claimed by a stranger's XCLAIM [xclaim] is lost to us. Ack is
// XACK, and XDEL unless the stream is shared. A dead letter is pushed to a list
// of its own (the body as it was), or added to a stream of its own (the fields,
// and muster-reason, muster-id, muster-attempts).
//
// # What it can tell
//
// InFlight, Delayed, Dead: the sizes of those keys. Names, Durable: leases live
// on the server and know nothing of connections. Binary: Redis strings are.
//
// Oldest: of a stream, since IDs are times [streams]; of a list never, since
// Redis keeps no time with an element.
//
// Arrived: of a stream its entries-added [xinfo-stream] (7.0, which is why); of
// a list what was taken and what is left, which is right as long as nobody else
// takes from it; List.Shared says that somebody does.
//
// The backlog of a stream is the group's lag [xinfo-groups], which Redis does
// not know at times (it is nil after XDEL of entries not yet delivered) and gets
// wrong at others (7.0 counts entries that were trimmed before anybody read
// them). So the next entry is looked for: none is a backlog of zero; otherwise
// it is at least one and at most the stream's length.
//
// Push: CLIENT TRACKING in broadcast mode (Redis 6) [tracking] tells us of each
// change to the queue's keys on a connection of its own. Compared to a blocking
// BLMOVE from the list to itself it moves no body and no message, and also tells
// of arrivals behind a backlog; compared to key space notifications it needs no
// setting of the server. Where a server refuses it (Redis 5, proxies, access
// lists) the queue is looked at ten times a second instead. Each look, at least
// one a second, returns what leases and delays ended of; the time of the next
// end is known, and waited for.
//
// With Config.ReadOnly no script is run: a list is its LLEN, and neither what is
// in flight nor what arrived is known of it; a stream is what XINFO and one
// XRANGE tell, in two round trips.
//
// # Crashes and lost answers
//
// Nothing is held by a process: what a dead one had comes again when its lease
// ends. A script whose answer is lost may have run: a message it leased comes
// again when the lease ends; a second Ack of what it acknowledged is ErrFenced.
// Scripts are not repeated by the client, but in a cluster, whose client does
// so after an error of the network; to the same effect. What the server itself forgets, in a
// failover to a replica that had not heard of it yet, it forgets of any client.
//
// [cluster-spec]: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
// [streams]: https://redis.io/docs/latest/develop/data-types/streams/
// [xreadgroup]: https://redis.io/commands/xreadgroup/
// [xclaim]: https://redis.io/commands/xclaim/
// [xinfo-stream]: https://redis.io/commands/xinfo-stream/
// [xinfo-groups]: https://redis.io/commands/xinfo-groups/
// [tracking]: https://redis.io/docs/latest/develop/reference/client-side-caching/
// [eval]: https://redis.io/docs/latest/develop/programmability/eval-intro/
package redis
