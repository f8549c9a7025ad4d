// Package server is Muster's HTTP API: the routes of api/v1alpha1 with their
// OpenAPI document, the streams of logs and events, exec over a WebSocket,
// metrics and health.
//
// It may import api/v1alpha1, internal/fleet and HTTP libraries; it knows no
// store, queue or sandbox adapter, and decides nothing: what it does to the
// fleet goes through the ports of package fleet and [Engine].
//
// # Who may ask
//
// Everything wants "Authorization: Bearer TOKEN", or a session, of a [Role] that
// may do it, but /healthz, /readyz and the
// OpenAPI document; /metrics is open to the machine itself. A request from a
// web page of another origin is refused (there is no CORS), and so is one whose
// Host header is a name that is not ours: a page that resolves its own name to
// 127.0.0.1 (DNS rebinding) sends that name.
//
// # Errors
//
// Every error is application/problem+json (RFC 9457) with one entry in errors
// for each field that is wrong, named as the user wrote it:
//
//	401 no or a wrong token       413 the body is too large
//	403 another origin or host    422 fields are wrong
//	404 no such thing             429 the queue is at its bound (Retry-After)
//	405 no such method            503 something needed does not answer (Retry-After)
//	409 it is not in that state   507 the disk is full
//
// # Streams
//
// GET /v1/tasks/{id}/log and GET /v1/events?follow=true answer as server-sent
// events. Each carries an id; a client that lost the connection sends it as
// Last-Event-ID and goes on behind it. The id of a log record is
// "ATTEMPT-OFFSET", where the offset is that behind the record. A comment every
// 15 s keeps proxies from closing a quiet stream. A client that takes nothing
// for 30 s is disconnected; a stream holds one record in memory, whatever the
// length of the log. When the server stops it ends every stream, without the
// "end" event, so that clients come back.
//
// GET /v1/tasks/{id}/log as text/plain is the bytes of all streams as they
// were written. GET /v1/tasks/{id}/wait answers when the task is final, or
// with its present state when ?timeout= is over.
//
// GET /v1/tasks/{id}/exec becomes a WebSocket; see v1alpha1.ExecProtocol.
//
// # Consumers
//
// Where others carry the sandboxes of a fleet, exec and live usage of a task are
// passed on, with the caller's own credentials, to the process that owns its
// sandbox, once ([Forwarding]); one that is away is a 503. A cancellation is
// written to the store first and then told to the owner, which finds it there in
// any case.
package server
