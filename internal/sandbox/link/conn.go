package link

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// conn is one connection of the runner, after the handshake.
type conn struct {
	s     *Session
	pc    *protocol.Conn
	hello protocol.Hello
	clock clock
	gone  chan struct{} // closed when the connection is of no further use
	once  sync.Once
	err   error // why; valid once gone is closed

	mu     sync.Mutex
	claim  *claim // nil until claim or attach was sent on this connection
	in     *inbox
	execs  map[uint32]*exec
	lastID uint32

	// The rest belongs to the goroutine that reads.
	logNext  int64
	phases   int
	files    int
	bytes    int64 // of all files
	blob     protocol.Blob
	blobNext int64 // bytes of blob received
	blobOpen bool
	reported bool
	cheap    int // cheap frames in this second
	cheapAt  time.Time
}

// close ends the connection for the given reason; the first one counts. What
// was received stays in the inbox.
func (cn *conn) close(err error) {
	cn.once.Do(func() {
		cn.err = err
		close(cn.gone)
		_ = cn.pc.Close()
	})
}

// serve reads the connection until it ends.
func (s *Session) serve(cn *conn) {
	if err := s.install(cn); err != nil {
		s.log.Warn("runner refused", "err", err)
		_ = cn.pc.Send(protocol.TypeRefuse, protocol.Refuse{Why: err.Error()})
		cn.close(err)
		return
	}
	err := s.greet(cn)
	for err == nil {
		var t protocol.Type
		var payload []byte
		if t, payload, err = cn.pc.Receive(); err == nil {
			err = cn.handle(t, payload)
		}
	}
	cn.close(err)
	cn.mu.Lock()
	if cn.in != nil {
		cn.in.close()
	}
	cn.mu.Unlock()
	s.mu.Lock()
	if errors.Is(err, protocol.ErrProtocol) {
		s.log.Warn("runner broke the protocol", "err", err)
		s.punish()
	} else if !errors.Is(err, io.EOF) {
		s.log.Debug("runner disconnected", "err", cn.err)
	}
	if s.conn == cn {
		s.conn = nil
	}
	s.notify()
	s.mu.Unlock()
}

// greet sends what a new connection must know at once.
func (s *Session) greet(cn *conn) error {
	s.mu.Lock()
	c := s.claim
	if c == nil {
		s.mu.Unlock()
		return nil
	}
	done, accepted := c.done, c.accepted
	s.mu.Unlock()
	if done {
		return cn.pc.Send(protocol.TypeReportAck, c.ref)
	}
	if cn.hello.State == protocol.StateReady && !accepted {
		// The claim was lost with the connection before.
		return c.sendClaim(cn)
	}
	return nil
}

// bind lets task events in from now on. Of several callers only the first
// gets true: it must tell the runner.
func (cn *conn) bind(c *claim, logNext int64) (first bool, err error) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	select {
	case <-cn.gone:
		return false, net.ErrClosed
	default:
	}
	if cn.claim == c {
		return false, nil
	}
	if cn.claim != nil {
		return false, errReplaced
	}
	cn.claim, cn.in, cn.logNext = c, newInbox(), logNext
	return true, nil
}

// bound returns the claim and the inbox task events go to, nil before bind.
func (cn *conn) bound() (*claim, *inbox) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	return cn.claim, cn.in
}

// cheapPerSecond bounds frames that cost the host little and the runner less.
const cheapPerSecond = 2000

// handle takes one frame; an error ends the connection.
func (cn *conn) handle(t protocol.Type, payload []byte) error {
	switch t {
	case protocol.TypeLog:
		return cn.onLog(payload)
	case protocol.TypeBlobPart:
		return cn.onBlobPart(payload)
	case protocol.TypeExecOut:
		return cn.onExecOut(payload)
	}
	if err := cn.spend(t); err != nil {
		return err
	}
	switch t {
	case protocol.TypeHeartbeat:
		p, _, err := protocol.ParsePosition(t, payload)
		if err == nil {
			cn.clock.observe(time.Now(), p.Value)
		}
		return err
	case protocol.TypeReady:
		return cn.onReady(payload)
	case protocol.TypeAccepted, protocol.TypeRejected:
		return cn.onAnswer(t, payload)
	case protocol.TypePhase:
		return cn.onPhase(payload)
	case protocol.TypeBlob:
		return cn.onBlob(payload)
	case protocol.TypeReport:
		return cn.onReport(payload)
	case protocol.TypeExecExit:
		return cn.onExecExit(payload)
	case protocol.TypeExecAck:
		return cn.onExecAck(payload)
	}
	return protocol.Violation("unexpected %s from a runner", t)
}

func (cn *conn) spend(t protocol.Type) error {
	if now := time.Now(); now.Sub(cn.cheapAt) >= time.Second {
		cn.cheapAt, cn.cheap = now, 0
	}
	if cn.cheap++; cn.cheap > cheapPerSecond {
		return protocol.Violation("flood of %s", t)
	}
	return nil
}

func (cn *conn) onReady(payload []byte) error {
	var r protocol.Ready
	if err := protocol.Decode(protocol.TypeReady, payload, &r); err != nil {
		return err
	}
	s := cn.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case protocol.StateNew, protocol.StatePreparing, protocol.StateFailed:
	default:
		return protocol.Violation("ready while %s", s.state)
	}
	if s.conn != cn {
		return errReplaced
	}
	s.state = protocol.StateReady
	if r.Reason != fleet.ReasonNone {
		s.state, s.failure = protocol.StateFailed, readyError(r)
	}
	s.notify()
	return nil
}

func readyError(r protocol.Ready) error {
	if r.Reason != fleet.ReasonTimeoutStartup {
		r.Reason = fleet.ReasonPrepare // the only other thing a runner can know
	}
	return &fleet.ReasonError{
		Reason: r.Reason,
		Err:    errors.New(cut(r.Error, 2<<10)),
		Output: cut(r.Output, protocol.MaxOutput),
	}
}

// cut keeps the last n bytes of what a runner wrote for people.
func cut(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

// clock corrects the runner's clock to ours: the smallest difference seen is
// the nearest to the truth, the rest being the way here. On one machine it is
// the same clock, so small differences count as none.
type clock struct {
	known atomic.Bool
	diff  atomic.Int64 // ours minus the runner's, nanoseconds
}

// sameClock is the difference that transport alone can explain.
const sameClock = 500 * time.Millisecond

func (c *clock) observe(now time.Time, theirs int64) {
	d := now.UnixNano() - theirs
	if !c.known.Load() || d < c.diff.Load() {
		c.diff.Store(d)
		c.known.Store(true)
	}
}

// correct returns the runner's time on our clock, never later than now.
func (c *clock) correct(theirs int64) time.Time {
	d := c.diff.Load()
	if time.Duration(d).Abs() < sameClock {
		d = 0
	}
	now := time.Now()
	at := time.Unix(0, theirs+d)
	if at.After(now) || at.Before(now.Add(-maxLag)) {
		return now
	}
	return at
}

// maxLag is how old an event may be: a control plane was away for so long.
const maxLag = 7 * 24 * time.Hour
