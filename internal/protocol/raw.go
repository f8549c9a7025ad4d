package protocol

import (
	"encoding/binary"

	"muster.dev/muster/internal/fleet"
)

// LogHeader stands before log data: 8 bytes of offset over all streams, 8 of
// the runner's clock in unix nanoseconds, 1 of stream.
type LogHeader struct {
	Offset int64
	At     int64
	Stream fleet.Stream
}

const logHeaderLen = 17

// SendLog writes at most MaxChunk log bytes.
func (c *Conn) SendLog(h LogHeader, data []byte) error {
	var b [logHeaderLen]byte
	binary.BigEndian.PutUint64(b[0:], uint64(h.Offset))
	binary.BigEndian.PutUint64(b[8:], uint64(h.At))
	b[16] = byte(h.Stream)
	return c.send(byte(TypeLog), b[:], data)
}

// ParseLog splits a log frame; the data is a part of payload and never empty.
func ParseLog(payload []byte) (LogHeader, []byte, error) {
	if len(payload) <= logHeaderLen || len(payload) > logHeaderLen+MaxChunk {
		return LogHeader{}, nil, Violation("log frame of %d bytes", len(payload))
	}
	h := LogHeader{
		Offset: int64(binary.BigEndian.Uint64(payload[0:])),
		At:     int64(binary.BigEndian.Uint64(payload[8:])),
		Stream: fleet.Stream(payload[16]),
	}
	if h.Offset < 0 || h.Offset > 1<<62 {
		return LogHeader{}, nil, Violation("log offset %d", h.Offset)
	}
	if h.Stream < fleet.StreamStdout || h.Stream > fleet.StreamSystem {
		return LogHeader{}, nil, Violation("log stream %d", h.Stream)
	}
	return h, payload[logHeaderLen:], nil
}

// Position is the header of acknowledgements, file parts and heartbeats: 4
// bytes of number, 8 of value.
type Position struct {
	Number uint32
	Value  int64
}

const positionLen = 12

// SendPosition writes a frame of a Position and at most MaxChunk bytes.
func (c *Conn) SendPosition(t Type, p Position, data []byte) error {
	var b [positionLen]byte
	binary.BigEndian.PutUint32(b[0:], p.Number)
	binary.BigEndian.PutUint64(b[4:], uint64(p.Value))
	return c.send(byte(t), b[:], data)
}

// ParsePosition splits a frame that SendPosition wrote. Only blobPart carries
// data, and then at least one byte.
func ParsePosition(t Type, payload []byte) (Position, []byte, error) {
	if len(payload) < positionLen {
		return Position{}, nil, Violation("%s frame of %d bytes", t, len(payload))
	}
	p := Position{
		Number: binary.BigEndian.Uint32(payload[0:]),
		Value:  int64(binary.BigEndian.Uint64(payload[4:])),
	}
	data := payload[positionLen:]
	if t == TypeBlobPart {
		if len(data) == 0 || len(data) > MaxChunk {
			return Position{}, nil, Violation("blobPart with %d bytes", len(data))
		}
	} else if len(data) != 0 {
		return Position{}, nil, Violation("%s frame of %d bytes", t, len(payload))
	}
	return p, data, nil
}

// ExecHeader stands before exec bytes: 4 bytes of exec number, 1 of stream
// (stdout, stderr; stdout for stdin's direction).
type ExecHeader struct {
	ID     uint32
	Stream fleet.Stream
}

const execHeaderLen = 5

// SendExec writes at most MaxChunk bytes of an exec's input or output.
func (c *Conn) SendExec(t Type, h ExecHeader, data []byte) error {
	var b [execHeaderLen]byte
	binary.BigEndian.PutUint32(b[0:], h.ID)
	b[4] = byte(h.Stream)
	return c.send(byte(t), b[:], data)
}

// ParseExec splits a frame that SendExec wrote; the data is never empty.
func ParseExec(t Type, payload []byte) (ExecHeader, []byte, error) {
	if len(payload) <= execHeaderLen || len(payload) > execHeaderLen+MaxChunk {
		return ExecHeader{}, nil, Violation("%s frame of %d bytes", t, len(payload))
	}
	h := ExecHeader{ID: binary.BigEndian.Uint32(payload), Stream: fleet.Stream(payload[4])}
	if h.Stream != fleet.StreamStdout && h.Stream != fleet.StreamStderr {
		return ExecHeader{}, nil, Violation("%s stream %d", t, h.Stream)
	}
	return h, payload[execHeaderLen:], nil
}

// ExecCost is what a frame of n bytes takes of an exec window: tiny frames
// are not free to keep.
func ExecCost(n int) int { return n + 64 }
