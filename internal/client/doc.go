// Package client speaks Muster's HTTP API from Go. It is what the command
// line is made of, and it exists so that the awkward parts live in one place:
// finding the server and the token, turning a problem+json answer into a
// sentence with a hint, following a log over lost connections and a
// restarting server without losing or repeating a byte, and waiting for a
// task to end.
//
// It may import api/v1alpha1 and internal/fleet (for the nouns in answers);
// never a store, a queue or a sandbox adapter.
//
// # Streams
//
// Logs and events are server-sent events. A log record carries its byte
// offset over all streams, an event its sequence number; after a lost
// connection the client asks again from there, and drops what it has seen.
// While the server is away the client tries again, at first after 50 ms and
// then up to every 2 s, until [Options.Patience] is used up.
//
// # Exec
//
// GET /v1/tasks/{id}/exec is upgraded to a WebSocket with the subprotocol
// [v1alpha1.ExecProtocol]. Text messages are a [v1alpha1.ExecMessage];
// binary messages carry bytes, and their first byte names the stream:
// 0 stdin (client to server), 1 stdout, 2 stderr (server to client).
//
//	client  {"type":"start","command":["sh","-l"],"env":{"K":"V"},
//	         "tty":true,"stdin":true,"rows":24,"cols":80}     first message
//	client  binary 0…                                         input
//	client  {"type":"stdin_close"}                            end of input
//	client  {"type":"resize","rows":40,"cols":120}            tty only
//	server  binary 1… / 2…                                    output
//	server  {"type":"exit","code":0}                          last message
//	server  {"type":"error","message":"…","hint":"…"}         last message
//
// After exit or error the server closes with status 1000. "env", "rows" and
// "cols" may be left out; without "stdin" the command reads end of file at
// once. A message is at most 64 KiB. A connection lost before the end stops
// the command.
package client
