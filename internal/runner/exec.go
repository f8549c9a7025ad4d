//go:build linux

package runner

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// execution is one command beside the task. It lives as long as its
// connection.
type execution struct {
	s     *session
	id    uint32
	p     *process
	tty   *os.File // master, with a terminal
	stdin *os.File // write end, without one
	outs  []*os.File
	done  chan struct{} // closed after exit was sent

	mu     sync.Mutex
	cond   sync.Cond
	input  [][]byte // not written yet
	eof    bool     // no more input will come
	inCost int64    // cost of all input written
	queued int      // cost of input
	sent   int64    // cost of output sent
	taken  int64    // and acknowledged
	closed bool
}

func (s *session) onExec(payload []byte) error {
	var x protocol.Exec
	if err := protocol.Decode(protocol.TypeExec, payload, &x); err != nil {
		return err
	}
	s.mu.Lock()
	_, exists := s.execs[x.ID]
	full := len(s.execs) >= protocol.MaxExecs
	s.mu.Unlock()
	if exists || full || len(x.Command) == 0 {
		return protocol.Violation("exec %d", x.ID)
	}
	e := &execution{s: s, id: x.ID, done: make(chan struct{})}
	e.cond.L = &e.mu
	if err := e.start(x); err != nil {
		exit := protocol.ExecExit{ID: x.ID, Code: -1, Error: err.Error()}
		if se := (*startError)(nil); asStart(err, &se) {
			exit.Code, _ = se.code()
		}
		return s.pc.Send(protocol.TypeExecExit, exit)
	}
	s.mu.Lock()
	s.execs[x.ID] = e
	s.mu.Unlock()
	s.r.wg.Go(e.run)
	return nil
}

// execEnv is the environment of a command beside the task: the task's where there is one.
func (s *session) execEnv(x protocol.Exec) []string {
	r := s.r
	r.mu.Lock()
	t, tmpl := r.task, r.env
	r.mu.Unlock()
	extra := map[string]string{}
	if x.TTY {
		extra["TERM"] = "xterm-256color"
	}
	if t == nil {
		return r.environ(nil, tmpl, extra, x.Env)
	}
	return r.environ(t.ownEnv(), tmpl, t.a.Env, extra, x.Env)
}

func (e *execution) start(x protocol.Exec) error {
	c := command{argv: x.Command, env: e.s.execEnv(x), dir: e.s.r.c.Workspace}
	if x.TTY {
		return e.startTTY(c, x.Rows, x.Cols)
	}
	return e.startPipes(c, x.Stdin)
}

func (e *execution) startPipes(c command, stdin bool) (err error) {
	a := e.s.r.a
	var theirs []int
	defer func() {
		for _, fd := range theirs {
			_ = syscall.Close(fd)
		}
		if err != nil {
			e.closeFiles()
		}
	}()
	if stdin {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
			return err
		}
		theirs = append(theirs, fds[0])
		_ = syscall.SetNonblock(fds[1], true)
		e.stdin = os.NewFile(uintptr(fds[1]), "stdin")
	} else {
		null, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		theirs = append(theirs, null)
	}
	for range 2 {
		f, w, err := pipe()
		if err != nil {
			return err
		}
		e.outs, theirs = append(e.outs, f), append(theirs, w)
	}
	c.files = [3]uintptr{uintptr(theirs[0]), uintptr(theirs[1]), uintptr(theirs[2])}
	e.p, err = a.exec(c)
	return err
}

func (e *execution) startTTY(c command, rows, cols uint16) error {
	var master, slave int
	err := os.ErrClosed
	// The one who opens the master owns the slave: the agent.
	e.s.r.a.as(func() { master, slave, err = openPTY() })
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(slave) }()
	e.tty = os.NewFile(uintptr(master), "ptmx")
	e.outs = []*os.File{e.tty}
	e.resize(rows, cols)
	c.files = [3]uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}
	c.ctty = true
	if e.p, err = e.s.r.a.exec(c); err != nil {
		e.closeFiles()
	}
	return err
}

// resize sets the terminal's size, where there is one.
func (e *execution) resize(rows, cols uint16) {
	if e.tty == nil || rows == 0 || cols == 0 {
		return
	}
	raw, err := e.tty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// run carries input and output until the command has ended.
func (e *execution) run() {
	defer close(e.done)
	var in, out sync.WaitGroup
	in.Go(e.feed)
	for i, f := range e.outs {
		out.Go(func() { e.copyOut(f, fleet.StreamStdout+fleet.Stream(i)) })
	}
	<-e.p.done
	// What it wrote is still to come; what outlived it may keep the pipe open.
	for _, f := range e.outs {
		_ = f.SetReadDeadline(time.Now().Add(lingerWait))
	}
	out.Wait()
	e.close()
	in.Wait()
	e.closeFiles()
	exit := protocol.ExecExit{ID: e.id, Code: e.p.status.ExitStatus()}
	if e.p.status.Signaled() {
		exit.Code = 128 + int(e.p.status.Signal())
	}
	e.s.mu.Lock()
	delete(e.s.execs, e.id)
	e.s.mu.Unlock()
	_ = e.s.pc.Send(protocol.TypeExecExit, exit)
}

// execBytes is how much is copied at once.
const execBytes = 16 << 10

func (e *execution) copyOut(f *os.File, stream fleet.Stream) {
	buf := make([]byte, execBytes)
	for {
		n, err := f.Read(buf)
		if n > 0 && !e.sendOut(stream, buf[:n]) {
			return
		}
		if err != nil {
			return // EOF; EIO from a terminal nobody holds any more
		}
	}
}

// sendOut waits for the window and sends; false when the connection is gone.
func (e *execution) sendOut(stream fleet.Stream, p []byte) bool {
	cost := int64(protocol.ExecCost(len(p)))
	e.mu.Lock()
	for !e.closed && e.sent+cost-e.taken > protocol.ExecWindow {
		e.cond.Wait()
	}
	closed := e.closed
	e.sent += cost
	e.mu.Unlock()
	return !closed && e.s.pc.SendExec(protocol.TypeExecOut, protocol.ExecHeader{ID: e.id, Stream: stream}, p) == nil
}

// feed writes input as it comes and acknowledges it.
func (e *execution) feed() {
	w := e.stdin
	if e.tty != nil {
		w = e.tty
	}
	for {
		p, ok := e.nextInput()
		if !ok {
			break
		}
		if w != nil {
			if _, err := w.Write(p); err != nil {
				w = nil // it does not read any more; the rest is dropped
			}
		}
		cost := protocol.ExecCost(len(p))
		e.mu.Lock()
		e.inCost += int64(cost)
		e.queued -= cost
		total := e.inCost
		e.mu.Unlock()
		_ = e.s.pc.SendPosition(protocol.TypeExecAck, protocol.Position{Number: e.id, Value: total}, nil)
	}
	if w != nil && e.tty != nil {
		_, _ = w.Write([]byte{4}) // end of file, as a terminal says it
	} else if e.stdin != nil {
		_ = e.stdin.Close()
	}
}

func (e *execution) nextInput() ([]byte, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.input) == 0 {
		if e.eof || e.closed {
			return nil, false
		}
		e.cond.Wait()
	}
	if e.closed {
		return nil, false
	}
	p := e.input[0]
	e.input = e.input[1:]
	return p, true
}

// close ends waiting for windows and input.
func (e *execution) close() {
	e.mu.Lock()
	e.closed = true
	e.cond.Broadcast()
	e.mu.Unlock()
	if e.stdin != nil {
		_ = e.stdin.SetWriteDeadline(time.Now())
	}
	if e.tty != nil {
		_ = e.tty.SetWriteDeadline(time.Now())
	}
}

func (e *execution) closeFiles() {
	if e.stdin != nil {
		_ = e.stdin.Close()
	}
	for _, f := range e.outs {
		_ = f.Close()
	}
}

// kill ends the command and its group.
func (e *execution) kill() {
	e.s.r.a.signal(e.p, syscall.SIGHUP)
	e.s.r.a.signal(e.p, syscall.SIGKILL)
}

func (s *session) execOf(id uint32) *execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.execs[id]
}

// endExecs kills everything that ran beside the task for this connection.
func (s *session) endExecs() {
	s.mu.Lock()
	var all []*execution
	for _, e := range s.execs {
		all = append(all, e)
	}
	s.mu.Unlock()
	for _, e := range all {
		e.close()
		e.kill()
	}
	for _, e := range all {
		<-e.done
	}
}

func (s *session) onExecControl(payload []byte) error {
	var x protocol.ExecControl
	if err := protocol.Decode(protocol.TypeExecControl, payload, &x); err != nil {
		return err
	}
	e := s.execOf(x.ID)
	if e == nil {
		return nil // it has just ended
	}
	if x.EOF {
		e.mu.Lock()
		e.eof = true
		e.cond.Broadcast()
		e.mu.Unlock()
	}
	if x.Kill {
		e.kill()
	}
	e.resize(x.Rows, x.Cols)
	return nil
}

func (s *session) onExecIn(payload []byte) error {
	h, data, err := protocol.ParseExec(protocol.TypeExecIn, payload)
	if err != nil {
		return err
	}
	e := s.execOf(h.ID)
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queued += protocol.ExecCost(len(data)); e.queued > protocol.ExecWindow {
		return protocol.Violation("exec input beyond the window")
	}
	e.input = append(e.input, append([]byte(nil), data...))
	e.cond.Broadcast()
	return nil
}

func (s *session) onExecAck(p protocol.Position) {
	e := s.execOf(p.Number)
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.Value > e.taken && p.Value <= e.sent {
		e.taken = p.Value
		e.cond.Broadcast()
	}
}

// openPTY returns master and slave of a new terminal; the master does not
// block.
func openPTY() (master, slave int, err error) {
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, 0, errors.Join(errors.New("no terminal: the sandbox has no /dev/ptmx"), err)
	}
	fail := func(err error) (int, int, error) {
		_ = unix.Close(master)
		return 0, 0, errors.Join(errors.New("no terminal"), err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fail(err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return fail(err)
	}
	slave, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	return master, slave, nil
}
