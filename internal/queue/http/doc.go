// Package http reads a queue's length from a JSON document that some service
// has at an address: a fleet.Signal, from which nothing can be taken. It may
// import fleet, connect, net/http and gjson.
//
// # What it can tell
//
// What a field names a path for, and no more: the traits are the configuration.
// There is no push; the reader polls. A reading is one request, so all its
// figures are of one moment, which is the moment before the request was sent.
//
// # What is an error
//
// A path that leads nowhere, null, text that is no number, a negative number,
// an answer that is no JSON, is larger than 1 MiB, or has another status than
// 2xx: never a zero. Only the age of the oldest message may be missing or null,
// where the backlog is 0. 401 and 403 are fleet.ErrDenied, 404 and 410
// fleet.ErrNotFound, all else fleet.ErrUnavailable.
//
// # Paths
//
// They are those of GJSON (github.com/tidwall/gjson, SYNTAX.md), as in the
// valueLocation of KEDA's metrics-api scaler, so that such a value can be taken
// over as it is: names and indices with dots between, # for the length of a
// list, #(…) for a search. The whole document is @this.
package http
