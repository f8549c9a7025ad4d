package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Sizes of the wire format, in bytes.
const (
	// MaxChunk is the most log, file or exec bytes in one frame.
	MaxChunk = 64 << 10
	// MaxPayload is the most payload of one frame: MaxChunk and its header.
	MaxPayload = MaxChunk + 64

	headerLen = 5
	partFlag  = 0x80 // further parts of this control message follow
)

// ErrProtocol is wrapped by every error that says the peer broke the rules.
var ErrProtocol = errors.New("protocol violation")

// Violation returns an error that wraps ErrProtocol.
func Violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// deadliner is the part of net.Conn that bounds reads and writes.
type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Conn frames messages on a stream. Any number of goroutines may send; one
// may receive.
type Conn struct {
	rw   io.ReadWriteCloser
	dl   deadliner // nil where the stream has no deadlines
	br   *bufio.Reader
	rbuf []byte // payload of the last frame; released when small frames follow

	readTimeout time.Duration
	maxMessage  int

	wmu          sync.Mutex
	wbuf         []byte
	writeTimeout time.Duration

	closeOnce sync.Once
	closeErr  error
}

// Limits bound what a Conn waits for and takes in; zero durations mean no
// bound.
type Limits struct {
	ReadTimeout  time.Duration // between two frames
	WriteTimeout time.Duration // of one frame
	MaxMessage   int           // bytes of one control message; 0: MaxPayload
}

// NewConn wraps rw. The Conn owns rw from now on.
func NewConn(rw io.ReadWriteCloser, l Limits) *Conn {
	c := &Conn{rw: rw, br: bufio.NewReaderSize(rw, 4<<10)}
	c.dl, _ = rw.(deadliner)
	c.SetLimits(l)
	return c
}

// SetLimits replaces the limits. Not while another goroutine receives.
func (c *Conn) SetLimits(l Limits) {
	if l.MaxMessage == 0 {
		l.MaxMessage = MaxPayload
	}
	if c.dl != nil && c.readTimeout > 0 && l.ReadTimeout == 0 {
		_ = c.dl.SetReadDeadline(time.Time{}) // else that of the last message would end the stream; a broken one fails when it is read
	}
	c.readTimeout, c.maxMessage = l.ReadTimeout, l.MaxMessage
	c.wmu.Lock()
	c.writeTimeout = l.WriteTimeout
	c.wmu.Unlock()
}

// Close ends the stream; blocked calls return. It may be called repeatedly.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.rw.Close() })
	return c.closeErr
}

// Receive returns the next message: for control messages the whole JSON, for
// the others one frame. The payload is valid until the next call. A stream
// that ended between two frames is io.EOF.
func (c *Conn) Receive() (Type, []byte, error) {
	if c.dl != nil && c.readTimeout > 0 {
		if err := c.dl.SetReadDeadline(time.Now().Add(c.readTimeout)); err != nil {
			return 0, nil, fmt.Errorf("set read deadline: %w", err)
		}
	}
	t, more, n, err := c.readHeader()
	if err != nil {
		return 0, nil, err
	}
	payload, err := c.readPayload(n)
	if err != nil || !more {
		return t, payload, err
	}
	return c.readParts(t, payload)
}

func (c *Conn) readHeader() (t Type, more bool, n int, err error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(c.br, h[:]); err != nil {
		return 0, false, 0, err
	}
	t, more = Type(h[0]&^partFlag), h[0]&partFlag != 0
	if !t.known() {
		return 0, false, 0, Violation("unknown frame type %d", t)
	}
	if more && !t.control() {
		return 0, false, 0, Violation("%s frames cannot be cut into parts", t)
	}
	size := binary.BigEndian.Uint32(h[1:])
	if size > MaxPayload {
		return 0, false, 0, Violation("%s frame of %d bytes; the most is %d", t, size, MaxPayload)
	}
	return t, more, int(size), nil
}

// smallPayload is what the receive buffer falls back to, so that an idle
// connection holds no large buffer.
const smallPayload = 2 << 10

func (c *Conn) readPayload(n int) ([]byte, error) {
	switch {
	case cap(c.rbuf) < n:
		// At most MaxPayload: a bounded constant, not the peer's choice.
		size := smallPayload
		for size < n {
			size *= 4
		}
		c.rbuf = make([]byte, min(size, MaxPayload))
	case n < smallPayload/8 && cap(c.rbuf) > smallPayload && c.br.Buffered() == 0:
		c.rbuf = make([]byte, smallPayload)
	}
	p := c.rbuf[:n]
	if _, err := io.ReadFull(c.br, p); err != nil {
		return nil, noEOF(err)
	}
	return p, nil
}

// readParts joins the parts of a control message.
func (c *Conn) readParts(t Type, first []byte) (Type, []byte, error) {
	whole := append([]byte(nil), first...)
	for {
		pt, more, n, err := c.readHeader()
		if err != nil {
			return 0, nil, noEOF(err)
		}
		if pt != t {
			return 0, nil, Violation("%s in the middle of %s", pt, t)
		}
		if n == 0 || len(whole)+n > c.maxMessage {
			return 0, nil, Violation("%s message over %d bytes or with an empty part", t, c.maxMessage)
		}
		p, err := c.readPayload(n)
		if err != nil {
			return 0, nil, err
		}
		whole = append(whole, p...)
		if !more {
			return t, whole, nil
		}
	}
}

// send writes one frame, header and payload parts, in one write.
func (c *Conn) send(first byte, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > MaxPayload {
		return fmt.Errorf("send %s: payload of %d bytes; the most is %d", Type(first&^partFlag), n, MaxPayload)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writeLocked(first, n, parts)
}

func (c *Conn) writeLocked(first byte, n int, parts [][]byte) error {
	if cap(c.wbuf) < headerLen+n {
		c.wbuf = make([]byte, 0, max(headerLen+n, 512))
	}
	b := append(c.wbuf[:0], first)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	for _, p := range parts {
		b = append(b, p...)
	}
	if c.dl != nil && c.writeTimeout > 0 {
		if err := c.dl.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
	}
	if _, err := c.rw.Write(b); err != nil {
		// A frame may be half written: the stream is of no further use.
		_ = c.Close()
		return err
	}
	return nil
}

// noEOF turns an end inside a frame into io.ErrUnexpectedEOF.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
