// Package protocol is what muster-runner, the process inside every sandbox,
// and the control plane say to each other, over any [io.ReadWriteCloser]: a
// unix socket on one machine, an upgraded HTTP connection over TLS elsewhere.
//
// A stream is a sequence of frames: one byte of type, four bytes of payload
// length (big endian, at most [MaxPayload]), the payload. Control messages are
// JSON objects; log, file and exec bytes follow a small fixed binary header. A
// control message larger than one frame is cut: every part but the last has
// bit 7 of its type set. Nothing is allocated on the word of a length field:
// memory grows with the bytes that really arrived, up to the reader's limit.
//
//	runner                                host
//	  │ ── hello{token,state,task} ────────▶ │  checks the token
//	  │ ◀──────────── welcome{prepare,env} ─ │
//	  │ ── ready ──────────────────────────▶ │  (after prepare)
//	  │ ◀────────────────── claim{task …} ── │
//	  │ ── accepted ───────────────────────▶ │
//	  │ ── phase, log(offset) ─────────────▶ │
//	  │ ◀─────────────────── logAck(offset)─ │  stored safely up to offset
//	  │ ── blob, blobPart… ────────────────▶ │  patch, artifacts
//	  │ ◀──────────────────── blobAck(part) ─│  credit; the last one: stored
//	  │ ── report ─────────────────────────▶ │
//	  │ ◀────────────────────── reportAck ── │  the runner exits
//
// After a broken connection the runner says hello again with what it holds;
// the host answers welcome and attach{logOffset}, and everything that was not
// acknowledged is sent again from there.
//
// Version rule: the host accepts hello from [MinVersion] to [Version] and
// answers with the version both speak; any change of a message is a new
// version. Hello and welcome tolerate unknown fields, all else is decoded
// strictly.
//
// It may import internal/fleet and the standard library.
package protocol
