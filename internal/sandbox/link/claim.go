package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// acceptTimeout bounds how long a runner may take to accept a claim; Claim
// returns then, whatever its context says.
const acceptTimeout = 15 * time.Second

// claim is the task of a session.
type claim struct {
	s          *Session
	ref        protocol.TaskRef
	assignment fleet.Assignment
	sink       fleet.TaskSink
	start      int64 // log bytes stored before this claim
	logLimit   int64
	cancel     context.CancelFunc
	ctx        context.Context // ends when this claim is given up
	ended      chan struct{}   // closed when the sink is not called any more
	answered   chan struct{}   // closed when accepted or rejected

	// Guarded by s.mu.
	accepted bool
	rejected error
	done     bool // the report was delivered
	stop     *protocol.Stop
}

// Claim hands the assignment to the runner and returns once it was accepted;
// see fleet.Sandboxes. With the task and fence the runner holds already, sink
// is attached and gets everything from sink.LogOffset() on.
func (s *Session) Claim(ctx context.Context, a fleet.Assignment, sink fleet.TaskSink) error {
	ctx, stop := context.WithTimeout(ctx, acceptTimeout)
	defer stop()
	c := &claim{
		s: s, ref: protocol.TaskRef{Task: a.Task, Fence: a.Fence}, assignment: a, sink: sink,
		ended: make(chan struct{}), answered: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	if err := s.setClaim(ctx, c); err != nil {
		c.cancel()
		return fmt.Errorf("claim: %w", err)
	}
	select {
	case <-c.answered:
		s.mu.Lock()
		err := c.rejected
		s.mu.Unlock()
		if err != nil {
			s.dropClaim(c)
			return fmt.Errorf("claim: %w", err)
		}
		return nil
	case <-ctx.Done():
		s.dropClaim(c)
		return fmt.Errorf("claim: %w: the runner did not accept the task in time: %w", fleet.ErrUnavailable, ctx.Err())
	case <-c.ended:
		select {
		case <-c.answered: // and finished already
			return nil
		default:
		}
		s.dropClaim(c)
		return fmt.Errorf("claim: %w", errEnded)
	}
}

// setClaim waits until the runner can take c, makes it the session's claim
// and sends it.
func (s *Session) setClaim(ctx context.Context, c *claim) error {
	c.start = c.sink.LogOffset()
	c.logLimit = math.MaxInt64
	if n := c.assignment.LogBytes; n > 0 {
		c.logLimit = c.start + n + protocol.LogSlack
	}
	var cn *conn
	var fresh bool
	var result error
	var before *claim
	err := s.await(ctx, func() bool {
		result = s.claimable(c)
		if result != nil {
			return true
		}
		cn = s.conn
		if cn == nil || s.state == protocol.StateNew || s.state == protocol.StatePreparing {
			return false
		}
		fresh = s.state == protocol.StateReady && s.claim == nil
		before, s.claim = s.claim, c
		s.wg.Add(1) // for the pump; under the lock, so that Close waits for it
		if !fresh {
			c.accepted = true
			close(c.answered)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%w: the runner is not connected: %w", fleet.ErrUnavailable, err)
	}
	if result != nil {
		return result
	}
	if before != nil {
		// The same task again: its first sink must be silent before the
		// second speaks, and the connection starts over.
		before.cancel()
		cn.close(errReplaced)
		<-before.ended
	}
	if !fresh {
		go c.pump()
		return nil
	}
	err = c.sendClaim(cn)
	go c.pump()
	if errors.Is(err, fleet.ErrInvalid) {
		s.dropClaim(c)
		return err
	}
	return nil // a broken connection will come back and be sent the claim again
}

// claimable says why c can never be taken; s.mu is held.
func (s *Session) claimable(c *claim) error {
	switch {
	case s.ctx.Err() != nil:
		return fmt.Errorf("%w: the link to the sandbox was closed", fleet.ErrUnavailable)
	case s.ended:
		return s.endError()
	case s.failure != nil:
		return s.failure
	case s.claim != nil && s.claim.ref != c.ref:
		return fmt.Errorf("%w: the sandbox holds task %s", fleet.ErrConflict, s.claim.ref.Task)
	case s.claim != nil && s.claim.done:
		return fmt.Errorf("%w: task %s has ended", fleet.ErrConflict, c.ref.Task)
	case s.claim == nil && s.conn != nil && s.conn.hello.Task != "" &&
		(protocol.TaskRef{Task: s.conn.hello.Task, Fence: s.conn.hello.Fence}) != c.ref:
		return fmt.Errorf("%w: the sandbox holds task %s", fleet.ErrConflict, s.conn.hello.Task)
	}
	return nil
}

// dropClaim gives c up; its sink is silent when it returns.
func (s *Session) dropClaim(c *claim) {
	c.cancel()
	s.mu.Lock()
	if s.claim == c {
		s.claim = nil
		if s.conn != nil {
			// The runner may hold the task by now; its next hello will tell.
			s.conn.close(errReplaced)
		}
	}
	s.notify()
	s.mu.Unlock()
	<-c.ended
}

// sendClaim binds cn and writes the claim: the one message of a warm start.
func (c *claim) sendClaim(cn *conn) error {
	if n := assignmentSize(c.assignment); n > protocol.MaxFromHost/8 { // JSON may escape
		if b, err := json.Marshal(c.assignment); err != nil || len(b) > protocol.MaxFromHost-1024 {
			return fmt.Errorf("%w: the task's prompt, environment and commands take %d bytes; the most is %d",
				fleet.ErrInvalid, n, protocol.MaxFromHost-1024)
		}
	}
	first, err := cn.bind(c, c.start)
	if err != nil || !first {
		return err
	}
	c.s.wake()
	return cn.pc.Send(protocol.TypeClaim, protocol.Claim{Assignment: c.assignment, LogOffset: c.start})
}

func assignmentSize(a fleet.Assignment) int {
	n := len(a.Prompt)
	if a.Input != nil {
		n += len(a.Input.Data)
	}
	for _, l := range [][]string{a.Setup, a.Command, a.Artifacts} {
		for _, s := range l {
			n += len(s)
		}
	}
	for k, v := range a.Env {
		n += len(k) + len(v)
	}
	return n
}

func (s *Session) wake() {
	s.mu.Lock()
	s.notify()
	s.mu.Unlock()
}

func (cn *conn) onAnswer(t protocol.Type, payload []byte) error {
	var r protocol.Rejected
	var err error
	if t == protocol.TypeAccepted {
		err = protocol.Decode(t, payload, &r.TaskRef)
	} else {
		err = protocol.Decode(t, payload, &r)
	}
	if err != nil {
		return err
	}
	c, _ := cn.bound()
	if c == nil || r.TaskRef != c.ref {
		return protocol.Violation("%s of task %.64q", t, r.Task)
	}
	s := cn.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.accepted || c.rejected != nil {
		return nil // told again after a reconnect
	}
	if t == protocol.TypeRejected {
		c.rejected = fmt.Errorf("%w: the runner refused the task: %s", fleet.ErrConflict, cut(r.Why, 1<<10))
	} else {
		c.accepted = true
		s.state, s.faults = protocol.StateBusy, 0
	}
	close(c.answered)
	return nil
}

// pump calls the sink, over all connections, until the report is delivered,
// the sandbox ends or the claim is given up.
func (c *claim) pump() {
	defer c.s.wg.Done()
	defer close(c.ended)
	s := c.s
	for {
		cn, ok := c.nextConn()
		if !ok {
			break
		}
		_, in := cn.bound()
		stop := context.AfterFunc(c.ctx, in.discard)
		err := c.drain(cn, in)
		stop()
		if c.isDone() {
			return
		}
		if err != nil && c.ctx.Err() == nil {
			s.log.Warn("task sink", "task", c.ref.Task, "err", err)
			s.mu.Lock()
			s.punish()
			s.mu.Unlock()
			cn.close(err)
		}
		in.discard()
		select {
		case <-cn.gone:
		case <-c.ctx.Done():
		}
	}
	s.mu.Lock()
	lost, err := s.ended && c.accepted && !c.done && c.ctx.Err() == nil, s.endErr
	s.mu.Unlock()
	if lost {
		if err == nil {
			err = errEnded
		}
		c.sink.Lost(err)
	}
}

func (c *claim) isDone() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.done
}

// nextConn waits for a connection on which the runner holds the task and
// makes sure it is attached; false when there will be none.
func (c *claim) nextConn() (*conn, bool) {
	for {
		var cn *conn
		err := c.s.await(c.ctx, func() bool {
			cn = c.s.conn
			if cn != nil {
				select {
				case <-cn.gone:
					cn = nil
				default:
				}
			}
			if cn == nil {
				return c.s.ended && c.s.conn == nil
			}
			b, _ := cn.bound()
			return b == c || cn.hello.Task == c.ref.Task && cn.hello.Fence == c.ref.Fence
		})
		if err != nil || cn == nil {
			return nil, false
		}
		if b, _ := cn.bound(); b == c {
			return cn, true
		}
		if err := c.attach(cn); err == nil {
			return cn, true
		}
		cn.close(io.ErrClosedPipe)
		select {
		case <-c.ctx.Done():
			return nil, false
		case <-cn.gone:
		}
	}
}

// attach asks a runner that holds the task for everything not stored yet.
func (c *claim) attach(cn *conn) error {
	offset := max(c.sink.LogOffset(), cn.hello.LogFrom)
	if _, err := cn.bind(c, offset); err != nil {
		return err
	}
	if err := cn.pc.Send(protocol.TypeAttach, protocol.Attach{TaskRef: c.ref, LogOffset: offset}); err != nil {
		return err
	}
	c.s.mu.Lock()
	stop := c.stop
	c.s.mu.Unlock()
	if stop != nil {
		return cn.pc.Send(protocol.TypeStop, *stop)
	}
	return nil
}
