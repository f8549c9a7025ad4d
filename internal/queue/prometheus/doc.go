// Package prometheus reads a queue's length from Prometheus, or from what speaks
// its HTTP API: a fleet.Signal, from which nothing can be taken. It may import
// fleet, connect and the standard library.
//
// # Mechanism
//
// Each figure is an instant query (prometheus.io, "HTTP API", Instant queries),
// all of them side by side and for one moment, which Prometheus chooses. A
// query is sent with GET, which proxies that only let readers through allow,
// and with POST where it is long.
//
// # How old a figure is
//
// The time in an answer is that of the evaluation, not that of the sample: a
// selector takes the last sample of the five minutes before ("Querying basics",
// Staleness). Samples of a target that is gone are marked as stale at once,
// unless they carry times of their own or were pushed: then a queue's length
// can be minutes old. Therefore
//
//   - lookback_delta is sent with each query, which makes servers that know it
//     leave out samples that are older than StaleAfter ("Instant queries"; version
//     2.42 does not know it yet, and leaves it unread);
//   - the query AsOf, such as min(timestamp(queue_length)), tells how old the
//     samples are; a figure older than StaleAfter is an error;
//   - the time of the evaluation itself may not be older than that either, as it
//     is in the answer of a cache.
//
// # What is an error
//
// No sample (unless EmptyIsZero), more than one, NaN and infinities, negative
// numbers, a warning of the server, as stores that answer in parts give it:
// never a zero. Only the age of the oldest message may be missing where the
// backlog is 0. 401 and 403 are fleet.ErrDenied, a query that cannot be
// evaluated fleet.ErrInvalid, 404 fleet.ErrNotFound, all else
// fleet.ErrUnavailable.
package prometheus
