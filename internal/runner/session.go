//go:build linux

package runner

import (
	"errors"
	"io"
	"sync"
	"time"

	"muster.dev/muster/internal/protocol"
)

// session is one connection to the control plane. The goroutine that called
// serve reads, another one sends whatever of the runner's state the host does
// not know yet; so a new connection just begins with nothing known.
type session struct {
	r        *Runner
	pc       *protocol.Conn
	begin    protocol.State // what hello said
	more     chan struct{}  // has room for one
	gone     chan struct{}
	finished bool

	mu       sync.Mutex
	task     *task // attached
	logNext  int64
	logHost  int64 // the host stored up to here
	consumed int64 // bytes of the open file the host took
	execs    map[uint32]*execution

	// The rest belongs to the sender.
	told   bool // ready
	phases int
	file   *openFile
	report bool
	buf    []byte
}

func newSession(r *Runner, pc *protocol.Conn, begin protocol.State) *session {
	return &session{
		r: r, pc: pc, begin: begin, more: make(chan struct{}, 1), gone: make(chan struct{}),
		execs: map[uint32]*execution{},
	}
}

func (s *session) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// serve runs the connection until it breaks or the report is stored.
func (s *session) serve() error {
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		if err := s.send(); err != nil {
			_ = s.pc.Close()
		}
	}()
	var err error
	for err == nil && !s.finished {
		var t protocol.Type
		var payload []byte
		if t, payload, err = s.pc.Receive(); err == nil {
			err = s.handle(t, payload)
		}
	}
	close(s.gone)
	_ = s.pc.Close()
	s.endExecs()
	<-sender
	s.closeFile()
	return err
}

func (s *session) handle(t protocol.Type, payload []byte) error {
	switch t {
	case protocol.TypeClaim:
		return s.onClaim(payload)
	case protocol.TypeAttach:
		return s.onAttach(payload)
	case protocol.TypeStop:
		return s.onStop(payload)
	case protocol.TypeReportAck:
		return s.onReportAck(payload)
	case protocol.TypeExec:
		return s.onExec(payload)
	case protocol.TypeExecControl:
		return s.onExecControl(payload)
	case protocol.TypeExecIn:
		return s.onExecIn(payload)
	case protocol.TypeNote:
		return s.onNote(payload)
	case protocol.TypeRefuse:
		return protocol.Violation("refused")
	}
	p, _, err := protocol.ParsePosition(t, payload)
	if err != nil {
		return err
	}
	switch t {
	case protocol.TypeLogAck:
		s.onLogAck(p.Value)
	case protocol.TypeBlobAck:
		s.onBlobAck(p)
	case protocol.TypeExecAck:
		s.onExecAck(p)
	default:
		return protocol.Violation("unexpected %s from the host", t)
	}
	return nil
}

func (s *session) onClaim(payload []byte) error {
	var c protocol.Claim
	if err := protocol.Decode(protocol.TypeClaim, payload, &c); err != nil {
		return err
	}
	ref := protocol.TaskRef{Task: c.Assignment.Task, Fence: c.Assignment.Fence}
	r := s.r
	r.mu.Lock()
	t, fresh := r.task, false
	switch {
	case r.state == protocol.StateReady:
		t, fresh = newTask(r, c), true
		r.task, r.state = t, protocol.StateBusy
	case t != nil && t.ref == ref:
	default:
		state := r.state
		r.mu.Unlock()
		return s.pc.Send(protocol.TypeRejected, protocol.Rejected{TaskRef: ref, Why: "the runner is " + string(state)})
	}
	r.mu.Unlock()
	err := s.pc.Send(protocol.TypeAccepted, ref)
	s.attach(t, c.LogOffset)
	if fresh {
		r.wg.Go(t.run)
	}
	return err
}

func (s *session) onAttach(payload []byte) error {
	var a protocol.Attach
	if err := protocol.Decode(protocol.TypeAttach, payload, &a); err != nil {
		return err
	}
	s.r.mu.Lock()
	t := s.r.task
	s.r.mu.Unlock()
	if t == nil || t.ref != a.TaskRef {
		return protocol.Violation("attach of task %s", a.Task)
	}
	s.attach(t, a.LogOffset)
	return nil
}

// attach sends everything of t from now on, log from offset.
func (s *session) attach(t *task, offset int64) {
	t.log.ack(offset)
	base, end := t.log.bounds()
	s.mu.Lock()
	s.task, s.logNext = t, min(max(offset, base), end)
	s.logHost = s.logNext
	s.mu.Unlock()
	s.signal()
}

func (s *session) onStop(payload []byte) error {
	var st protocol.Stop
	if err := protocol.Decode(protocol.TypeStop, payload, &st); err != nil {
		return err
	}
	s.r.mu.Lock()
	t := s.r.task
	s.r.mu.Unlock()
	if t != nil && t.ref == st.TaskRef {
		t.requestStop(st.Reason, st.Grace)
	}
	return nil
}

func (s *session) onReportAck(payload []byte) error {
	var ref protocol.TaskRef
	if err := protocol.Decode(protocol.TypeReportAck, payload, &ref); err != nil {
		return err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.state != protocol.StateDone || s.r.task.ref != ref {
		return protocol.Violation("reportAck of task %s", ref.Task)
	}
	s.finished = true
	return nil
}

func (s *session) onLogAck(to int64) {
	s.mu.Lock()
	t := s.task
	ok := t != nil && to <= s.logNext
	if ok {
		s.logHost = max(s.logHost, to)
	}
	s.mu.Unlock()
	if ok {
		t.log.ack(to)
		s.signal()
	}
}

func (s *session) onBlobAck(p protocol.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.task == nil || p.Number != s.task.fileNumber() {
		return
	}
	if p.Value == protocol.BlobStored {
		s.task.fileStored()
	} else {
		s.consumed = max(s.consumed, p.Value)
	}
	s.signal()
}

// send writes what the host does not know until the connection ends.
func (s *session) send() error {
	beat := time.NewTimer(s.interval())
	defer beat.Stop()
	for {
		more, err := s.sendNext()
		if err != nil {
			return err
		}
		if more {
			select {
			case <-beat.C:
			default:
				continue
			}
		} else {
			select {
			case <-s.more:
				continue
			case <-s.gone:
				return nil
			case <-beat.C:
			}
		}
		if err := s.pc.SendPosition(protocol.TypeHeartbeat, protocol.Position{Value: time.Now().UnixNano()}, nil); err != nil {
			return err
		}
		beat.Reset(s.interval())
	}
}

func (s *session) interval() time.Duration {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.state == protocol.StateReady {
		return protocol.HeartbeatIdle
	}
	return protocol.HeartbeatBusy
}

// sendNext sends one thing; false when there is nothing to send now.
func (s *session) sendNext() (bool, error) {
	if sent, err := s.sendReady(); sent || err != nil {
		return sent, err
	}
	s.mu.Lock()
	t := s.task
	s.mu.Unlock()
	if t == nil {
		return false, nil
	}
	phases, done := t.progress()
	if s.phases < len(phases) {
		s.phases++
		return true, s.pc.Send(protocol.TypePhase, phases[s.phases-1])
	}
	if sent, err := s.sendLog(t); sent || err != nil {
		return sent, err
	}
	if _, end := t.log.bounds(); !done || s.logSent() < end {
		return false, nil
	}
	if f, number, ok := t.nextFile(); ok {
		return s.sendFile(t, f, number)
	}
	if s.report {
		return false, nil
	}
	s.report = true
	return true, s.pc.Send(protocol.TypeReport, t.finalReport())
}

func (s *session) logSent() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logNext
}

// sendReady says how prepare ended to a host that was told it was not over.
func (s *session) sendReady() (bool, error) {
	if s.told || s.begin == protocol.StateReady || s.begin == protocol.StateBusy || s.begin == protocol.StateDone {
		return false, nil
	}
	s.r.mu.Lock()
	ready, over := s.r.ready, s.r.state != protocol.StateNew && s.r.state != protocol.StatePreparing
	s.r.mu.Unlock()
	if !over {
		return false, nil
	}
	s.told = true
	return true, s.pc.Send(protocol.TypeReady, ready)
}

func (s *session) sendLog(t *task) (bool, error) {
	from := s.logSent()
	if _, end := t.log.bounds(); from >= end {
		return false, nil
	}
	if s.buf == nil {
		s.buf = make([]byte, protocol.MaxChunk)
	}
	h, n := t.log.read(from, s.buf)
	if n == 0 {
		return false, nil
	}
	// Before the write: the acknowledgement may be faster than the return.
	s.mu.Lock()
	s.logNext = from + int64(n)
	s.mu.Unlock()
	return true, s.pc.SendLog(h, s.buf[:n])
}

// openFile is the file being sent.
type openFile struct {
	number uint32
	size   int64
	r      io.ReadCloser
	next   int64
	short  bool
}

func (s *session) closeFile() {
	if s.file != nil {
		_ = s.file.r.Close()
		s.file = nil
	}
}

// partBytes is how much of a file goes into one frame.
const partBytes = 32 << 10

// sendFile sends the next part of the next file not stored yet.
func (s *session) sendFile(t *task, f outFile, number uint32) (bool, error) {
	if s.file == nil || s.file.number != number {
		s.closeFile()
		s.mu.Lock()
		s.consumed = 0
		s.mu.Unlock()
		s.file = &openFile{number: number, size: f.size, r: f.open()}
		return true, s.pc.Send(protocol.TypeBlob, protocol.Blob{TaskRef: t.ref, File: number, Path: f.path, Size: f.size})
	}
	o := s.file
	s.mu.Lock()
	room := protocol.BlobWindow - (o.next - s.consumed)
	s.mu.Unlock()
	n := min(o.size-o.next, room, partBytes)
	if n <= 0 {
		return false, nil
	}
	if s.buf == nil {
		s.buf = make([]byte, protocol.MaxChunk)
	}
	p := s.buf[:n]
	if got, err := io.ReadFull(o.r, p); err != nil {
		// The size was promised; a file cut meanwhile is filled up.
		clear(p[got:])
		if !o.short && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			o.short = true
			t.fileChanged(f.path)
		}
	}
	pos := protocol.Position{Number: number, Value: o.next}
	o.next += n
	return true, s.pc.SendPosition(protocol.TypeBlobPart, pos, p)
}
