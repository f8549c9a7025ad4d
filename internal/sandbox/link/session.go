package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// Options of a session.
type Options struct {
	Token   string            // what the runner must present; never empty
	Prepare []string          // shell commands of the template
	Env     map[string]string // of the template
	Startup time.Duration     // bound of prepare; 0: none
	Logger  *slog.Logger      // nil: discarded
}

// Session is the link to the runner of one sandbox. Its methods are safe for
// concurrent use.
type Session struct {
	o      Options
	l      net.Listener
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever something below changes
	conn    *conn         // nil while disconnected
	state   protocol.State
	hello   protocol.Hello // the newest
	failure error          // of prepare
	claim   *claim
	ended   bool // the sandbox is gone
	endErr  error
	faults  int // broken rules and sink errors since the last good exchange
	pauseTo time.Time
}

// Serve accepts the runner's connections on l, which it owns from now on,
// until Close.
func Serve(l net.Listener, o Options) *Session {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Session{o: o, l: l, log: o.Logger, changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s
}

// Close stops listening and leaves the sandbox alive. Sinks hear nothing
// more. It waits until no sink is being called, so a sink may not call it.
func (s *Session) Close() error {
	err := s.l.Close()
	s.mu.Lock()
	s.cancel()
	if s.conn != nil {
		s.conn.close(net.ErrClosed)
	}
	s.notify()
	s.mu.Unlock()
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// End says the sandbox is gone. What the runner had sent is still handed to
// the sink; then, unless a report was among it, the sink hears Lost(err).
func (s *Session) End(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.endErr = true, err
	if cn := s.conn; cn != nil {
		// The kernel delivers what the dead runner wrote and then the end; a
		// peer that is somehow not dead must not keep us.
		time.AfterFunc(endGrace, func() { cn.close(errEnded) })
	}
	s.notify()
}

// endGrace is how long the rest of a dead runner's bytes may take.
const endGrace = 5 * time.Second

var errEnded = fmt.Errorf("%w: the sandbox has ended", fleet.ErrNotFound)

// notify wakes everyone waiting for a change; s.mu is held.
func (s *Session) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await calls check, with s.mu held, now and after every change until it
// reports true, ctx ends or the session is closed.
func (s *Session) await(ctx context.Context, check func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := check(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return fmt.Errorf("%w: the link to the sandbox was closed", fleet.ErrUnavailable)
		}
	}
}

// Ready waits until the runner has finished prepare. It returns a
// *fleet.ReasonError (prepare, timeout_startup) when prepare failed, the error
// given to End when the sandbox ended before.
func (s *Session) Ready(ctx context.Context) error {
	var result error
	err := s.await(ctx, func() bool {
		switch {
		case s.failure != nil:
			result = s.failure
		case s.state == protocol.StateReady, s.state == protocol.StateBusy, s.state == protocol.StateDone:
		case s.ended:
			result = s.endError()
		default:
			return false
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("wait for the runner: %w", err)
	}
	return result
}

func (s *Session) endError() error {
	if s.endErr != nil {
		return fmt.Errorf("%w: %w", errEnded, s.endErr)
	}
	return errEnded
}

// Held waits for the runner's connection and returns the task it holds, empty
// when it holds none. False when ctx ended first or the sandbox is gone.
func (s *Session) Held(ctx context.Context) (fleet.TaskID, int64, bool) {
	var task fleet.TaskID
	var fence int64
	var alive bool
	err := s.await(ctx, func() bool {
		if s.ended || s.state == protocol.StateFailed {
			return true
		}
		if s.conn == nil {
			return false
		}
		task, fence, alive = s.conn.hello.Task, s.conn.hello.Fence, true
		if s.claim != nil {
			task, fence = s.claim.ref.Task, s.claim.ref.Fence
		}
		return true
	})
	return task, fence, alive && err == nil
}

// Lost lists protections the runner could not give its agent, in words; empty
// before the first hello.
func (s *Session) Lost() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hello.Lost
}

// Stop asks the runner to end its task. It waits for a connection where there
// is none, and for the next where one breaks under it. ErrNotFound when there
// was no task to stop; nil when the sandbox ended while it was being asked.
func (s *Session) Stop(ctx context.Context, reason fleet.TaskReason, grace time.Duration) error {
	stop := protocol.Stop{Reason: reason, Grace: grace}
	asked := false // a claim hands the request to its next connection, too
	var cn, broken *conn
	for {
		var result error
		err := s.await(ctx, func() bool {
			cn = s.conn
			switch {
			case s.ended:
				result = s.endError()
				return true
			case s.claim != nil:
				stop.TaskRef = s.claim.ref
				kept := stop
				s.claim.stop = &kept
				asked = true
			case cn == nil:
			case cn.hello.Task != "":
				stop.TaskRef = protocol.TaskRef{Task: cn.hello.Task, Fence: cn.hello.Fence}
			default:
				result = fmt.Errorf("stop: %w: the sandbox holds no task", fleet.ErrNotFound)
				return true
			}
			return cn != nil && cn != broken
		})
		switch {
		case err != nil:
			return fmt.Errorf("stop: %w: the runner is not connected: %w", fleet.ErrUnavailable, err)
		case result != nil && asked:
			return nil
		case result != nil:
			return result
		}
		asked = true
		if err := cn.pc.Send(protocol.TypeStop, stop); err == nil {
			return nil
		}
		broken = cn
	}
}

// punish makes the next connection wait; s.mu is held.
func (s *Session) punish() {
	s.faults++
	pause := min(50*time.Millisecond<<min(s.faults-1, 6), 2*time.Second)
	s.pauseTo = time.Now().Add(pause)
}
