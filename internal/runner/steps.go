//go:build linux

package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// stopGrace is what a process gets between SIGTERM and SIGKILL when a timeout
// ends it. The dispatcher's backstop comes 10 s after the timeout.
const stopGrace = 5 * time.Second

// steps runs commands of the agent one after the other.
type steps struct {
	a        *agent
	ctx      context.Context // when it ends, everything is killed
	deadline time.Time       // of all; zero: none
	idle     time.Duration   // without output; 0: no bound
	sink     func(fleet.Stream, []byte)
	quiet    bool        // standard output is not for people: not in the tail
	blocked  func() bool // output waits for the host, so silence is not the agent's
	stop     *stopper    // nil: nobody stops these
	pumps    sync.WaitGroup
	pipes    []*os.File // read ends
	last     atomic.Int64
}

// outcome is how one command ended.
type outcome struct {
	p       *process
	err     error // it could not be started
	status  syscall.WaitStatus
	stopped fleet.TaskReason // why we ended it; empty: it ended by itself
	tail    *tail
	pumped  chan struct{} // closed when all its output was read
}

func (o *outcome) ok() bool {
	return o.err == nil && o.stopped == fleet.ReasonNone && o.status.Exited() && o.status.ExitStatus() == 0
}

// exit returns the exit code, -1 where it did not exit, and the signal.
func (o *outcome) exit() (code int, sig string) {
	var se *startError
	switch {
	case errors.As(o.err, &se):
		code, _ = se.code()
		return code, ""
	case o.err != nil || o.p == nil:
		return -1, ""
	case o.status.Signaled():
		return -1, unix.SignalName(o.status.Signal())
	case o.status.Exited():
		return o.status.ExitStatus(), ""
	}
	return -1, ""
}

// what says how it ended, as the rest of a sentence.
func (o *outcome) what() string {
	code, sig := o.exit()
	switch {
	case o.err != nil:
		return "could not be run: " + o.err.Error()
	case sig != "":
		return "was killed by " + sig
	case code < 0:
		return "was ended"
	}
	return fmt.Sprintf("exited with %d", code)
}

// tailWait is how long the rest of the output of a command that failed may
// take; something in the background may keep the pipe open.
const tailWait = 200 * time.Millisecond

// output returns the last output, as text.
func (o *outcome) output() string {
	if o.pumped == nil {
		return ""
	}
	t := time.NewTimer(tailWait)
	defer t.Stop()
	select {
	case <-o.pumped:
	case <-t.C:
	}
	return o.tail.String()
}

// run executes c with its output pumped, until it ends, times out (as
// timeout) or is stopped.
func (s *steps) run(c command, timeout fleet.TaskReason) *outcome {
	o := &outcome{tail: &tail{}}
	if reason, _, ok := s.stop.asked(); ok {
		o.stopped = reason
		return o
	}
	if err := s.start(&c, o); err != nil {
		o.err = err
		return o
	}
	s.last.Store(time.Now().UnixNano())
	s.watch(o, timeout)
	return o
}

// start makes the pipes, starts c and pumps.
func (s *steps) start(c *command, o *outcome) error {
	from := c.stdin
	if from == "" {
		from = "/dev/null"
	}
	in, err := syscall.Open(from, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", from, err)
	}
	defer func() { _ = syscall.Close(in) }()
	out, outW, err := pipe()
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(outW) }()
	errs, errW, err := pipe()
	if err != nil {
		_ = out.Close()
		return err
	}
	defer func() { _ = syscall.Close(errW) }()
	c.files = [3]uintptr{uintptr(in), uintptr(outW), uintptr(errW)}
	if o.p, err = s.a.exec(*c); err != nil {
		_ = out.Close()
		_ = errs.Close()
		return err
	}
	s.pipes = append(s.pipes, out, errs)
	o.pumped = make(chan struct{})
	var both sync.WaitGroup
	outTail := o.tail
	if s.quiet {
		outTail = &tail{}
	}
	both.Go(func() { s.pump(out, fleet.StreamStdout, outTail) })
	both.Go(func() { s.pump(errs, fleet.StreamStderr, o.tail) })
	release := s.a.hold(o.p.pid)
	s.pumps.Go(func() { both.Wait(); release(); close(o.pumped) })
	return nil
}

// pipe returns a read end that can be waited for and a write end to hand over.
func pipe() (*os.File, int, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, 0, fmt.Errorf("make a pipe: %w", err)
	}
	_ = syscall.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "pipe"), fds[1], nil
}

// pumpBytes is how much is read at once.
const pumpBytes = 32 << 10

// pump hands output on until the pipe ends.
func (s *steps) pump(f *os.File, stream fleet.Stream, tail *tail) {
	defer func() { _ = f.Close() }()
	buf := make([]byte, pumpBytes)
	for {
		n, err := f.Read(buf)
		s.take(stream, tail, buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.drain(f, stream, tail, buf)
			return
		}
		if err != nil {
			return
		}
	}
}

// drain takes what is in the pipe of a process that outlived its task.
func (s *steps) drain(f *os.File, stream fleet.Stream, tail *tail, buf []byte) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = f.SetReadDeadline(time.Time{})
	for range protocol.LogWindow / 4096 {
		n := 0
		if raw.Read(func(fd uintptr) bool { n, err = syscall.Read(int(fd), buf); return true }) != nil || n <= 0 || err != nil {
			return
		}
		s.take(stream, tail, buf[:n])
	}
}

func (s *steps) take(stream fleet.Stream, tail *tail, p []byte) {
	if len(p) == 0 {
		return
	}
	tail.write(p)
	s.last.Store(time.Now().UnixNano())
	if s.sink != nil {
		s.sink(stream, p)
		s.last.Store(time.Now().UnixNano()) // the wait for room was not the agent's
	}
}

// lingerWait is how long output of processes that are not ours to kill is
// still taken after the task.
const lingerWait = 300 * time.Millisecond

// finish waits until all output was handed on. Everything should be dead; but
// where the runner is not pid 1 something may have escaped with our pipe.
func (s *steps) finish() {
	for _, f := range s.pipes {
		_ = f.SetReadDeadline(time.Now().Add(lingerWait))
	}
	s.pumps.Wait()
	s.pipes = nil
}

// watch waits for the end of o.p and enforces the bounds.
func (s *steps) watch(o *outcome, timeout fleet.TaskReason) {
	deadline, idle := newTimer(0), newTimer(s.idle)
	if !s.deadline.IsZero() {
		deadline = newTimer(max(time.Until(s.deadline), time.Nanosecond))
	}
	defer deadline.Stop()
	defer idle.Stop()
	for {
		select {
		case <-o.p.done:
			o.status = o.p.status
			return
		case <-deadline.C:
			s.end(o, timeout, stopGrace)
			return
		case <-idle.C:
			quiet := time.Since(time.Unix(0, s.last.Load()))
			if s.blocked != nil && s.blocked() {
				quiet = 0
			}
			if quiet >= s.idle {
				s.end(o, fleet.ReasonTimeoutIdle, stopGrace)
				return
			}
			idle.Reset(s.idle - quiet)
		case <-s.stop.signal():
			reason, grace, _ := s.stop.asked()
			s.end(o, reason, grace)
			return
		case <-s.ctx.Done():
			s.end(o, fleet.ReasonCancelled, 0)
			return
		}
	}
}

// newTimer returns a timer that never fires for 0.
func newTimer(d time.Duration) *time.Timer {
	if d > 0 {
		return time.NewTimer(d)
	}
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// end terminates the command: SIGTERM to its group, and after grace, or when
// asked again with less, SIGKILL to everything.
func (s *steps) end(o *outcome, reason fleet.TaskReason, grace time.Duration) {
	o.stopped = reason
	if grace > 0 {
		s.a.signal(o.p, syscall.SIGTERM)
	}
	begin, timer := time.Now(), time.NewTimer(grace)
	defer timer.Stop()
	for waiting := grace > 0; waiting; {
		select {
		case <-o.p.done:
			waiting = false
		case <-timer.C:
			waiting = false
		case <-s.ctx.Done():
			waiting = false
		case <-s.stop.signal():
			_, shorter, _ := s.stop.asked()
			timer.Reset(min(grace-time.Since(begin), shorter))
		}
	}
	s.a.killAll()
	t := time.NewTimer(killPatience)
	defer t.Stop()
	select {
	case <-o.p.done:
		o.status = o.p.status
	case <-t.C: // stuck in the kernel
	}
}

// capture runs c, writes its standard output to w and returns the tail of its
// standard error. It is not part of the log.
func (s *steps) capture(c command, w io.Writer) *outcome {
	sub := &steps{a: s.a, ctx: s.ctx, deadline: s.deadline, stop: s.stop, quiet: true}
	var mu sync.Mutex
	var failed error
	sub.sink = func(stream fleet.Stream, p []byte) {
		if stream != fleet.StreamStdout {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			_, failed = w.Write(p)
		}
	}
	o := sub.run(c, fleet.ReasonTimeoutRun)
	if o.pumped != nil {
		sub.a.signal(o.p, syscall.SIGKILL)
		sub.finish()
	}
	if failed != nil && o.err == nil {
		o.err = failed
	}
	return o
}
