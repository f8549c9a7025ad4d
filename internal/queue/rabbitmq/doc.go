// Package rabbitmq takes tasks from a classic or quorum queue of RabbitMQ, over
// AMQP 0-9-1. It may import fleet, connect and the client library.
//
// # What the broker tells
//
// A passive declare tells the messages that are ready, in time that does not
// grow with the queue (https://www.rabbitmq.com/docs/queues). What others hold
// unacknowledged, what was ever published and the timestamp of the head are
// told by the management API only (https://www.rabbitmq.com/docs/management,
// "HTTP API"), seconds late; so SignalTraits.InFlight and Arrived need its
// address, and Oldest also needs producers that set the timestamp and a classic
// queue that has its head in memory (rabbitmqctl(8), head_message_timestamp).
// Names is false: message_id is for the producer to set, and is the ID of those
// messages that have one. Durable is false: a delivery tag is good on its own
// channel only (https://www.rabbitmq.com/docs/confirms). Delayed is what this
// process holds back; of other control planes that is part of InFlight.
//
// A quorum queue without a leader reads as empty, without consumers (in the
// server's rabbit_quorum_queue:stat). Such a reading is verified by an empty
// basic.get, at most every 2 s, before it is believed.
//
// # Leases
//
// A lease is a delivery that we have not acknowledged, taken with basic.get, so
// that never more are held than were asked for. The broker knows no time of it:
// it ends when the channel does, or after consumer_timeout. So the clock is
// here, and what is overdue is rejected with requeue. An acknowledgement is not
// answered; basic.qos on the same channel is, after it. Attempts are those that
// quorum queues count (x-delivery-count,
// https://www.rabbitmq.com/docs/quorum-queues), else 2 for "redelivered".
//
// consumer_timeout (30 min unless configured, looked at once a minute,
// https://www.rabbitmq.com/docs/consumers) ends the whole channel of a delivery
// that is too old. So deliveries share a channel only with those of the same two
// minutes:
//
//	Receive ──> channel of 10:00 ── leases of 10:00 to 10:02 ──> all settled: reused
//	        ──> channel of 10:02 ── …
//
// What was lost is fenced at the next Extend, with the reason. Queues declared
// by us ask for a timeout of a week, which brokers from 3.12 heed. RabbitMQ 4.3
// returns a message of a quorum queue without ending a channel; that is noticed
// only by the message coming again.
//
// # Arrivals
//
// While a Receive came back short, a consumer with a prefetch of one waits. What
// it gets is offered to the next Receive and counted as backlog; after 4 s it
// goes back.
//
// # Setting aside
//
// The message is published to the dead-letter queue with its properties and the
// reason, on a connection of its own, since a broker that is short of memory
// stops reading from connections that publish
// (https://www.rabbitmq.com/docs/alarms). It is acknowledged once the broker has
// confirmed it. A crash between the two leaves it in both.
//
// # Crashes
//
// When the process or the connection ends, the broker returns everything that
// was leased or waiting at once, ahead of its time. Nothing is lost; what ran
// comes again, and is recognised by its ID or body. A delayed nack is a message
// held here, so that a crash makes it come sooner.
package rabbitmq
