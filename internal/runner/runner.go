//go:build linux

package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// Runner is one runner; see Run.
type Runner struct {
	c         Config
	a         *agent
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	proxyPort int

	mu    sync.Mutex
	state protocol.State
	ready protocol.Ready    // how prepare ended
	env   map[string]string // of the template
	base  string            // commit or tree prepare left in the workspace
	head  string            // its commit
	task  *task

	conn atomic.Pointer[session] // nil while disconnected
}

// Run connects to the control plane, prepares, runs one task and returns nil
// when its report is stored, or ctx's error. The calling goroutine becomes the
// one that starts processes.
func Run(ctx context.Context, c Config) error {
	r := &Runner{c: c, a: newAgent(c), state: protocol.StateNew}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	stop := make(chan struct{})
	if c.Scope != ScopeGroups {
		r.wg.Go(func() { r.a.reap(stop) })
	}
	if c.Proxy != nil {
		if err := r.startBridge(); err != nil {
			return err
		}
	}
	var result error
	r.wg.Go(func() {
		result = r.connect()
		r.cancel()
		r.a.killAll()
		close(stop)
	})
	r.a.loop(c.Isolate, stop)
	r.wg.Wait()
	return result
}

// ErrRefused says that the control plane will never take this runner.
var ErrRefused = errors.New("refused by the control plane")

// Back-off between connections. A part of each pause is random: the runners of
// a whole fleet lose their control plane at the same moment.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// connect keeps a connection to the control plane until the report of the
// task is stored.
func (r *Runner) connect() error {
	pause, longest := firstPause, lastPause
	if r.c.LongestPause > 0 {
		longest = r.c.LongestPause
	}
	for {
		welcomed, done, err := r.session()
		if done {
			return nil
		}
		if r.ctx.Err() != nil {
			return fmt.Errorf("runner stopped: %w", context.Cause(r.ctx))
		}
		if errors.Is(err, ErrRefused) {
			return err
		}
		if r.c.Disconnected != nil {
			r.c.Disconnected(err)
		}
		switch {
		case errors.Is(err, protocol.ErrProtocol):
			pause = longest
		case welcomed:
			pause = firstPause // whoever welcomes us also slows us down, if need be
		}
		t := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-t.C:
		case <-r.ctx.Done():
			t.Stop()
		}
		pause = min(2*pause, longest)
	}
}

// prepare runs the template's commands; the sandbox counts as ready after.
func (r *Runner) prepare(w protocol.Welcome) {
	ready := r.runPrepare(w)
	if ready.Reason == fleet.ReasonNone && len(w.Prepare) > 0 {
		r.rememberBase(w.Env)
	}
	// Whatever preparing needed is not needed while waiting; the caches the
	// first claim would fill are filled now.
	warmCodecs()
	debug.FreeOSMemory()
	r.mu.Lock()
	r.ready, r.env = ready, w.Env
	r.state = protocol.StateReady
	if ready.Reason != fleet.ReasonNone {
		r.state = protocol.StateFailed
	}
	r.mu.Unlock()
	r.wake()
}

func (r *Runner) runPrepare(w protocol.Welcome) protocol.Ready {
	if len(w.Prepare) == 0 {
		return protocol.Ready{}
	}
	env := r.environ(nil, w.Env)
	st := &steps{a: r.a, ctx: r.ctx}
	if w.Startup > 0 {
		st.deadline = time.Now().Add(w.Startup)
	}
	for i, line := range w.Prepare {
		o := st.run(command{argv: []string{"/bin/sh", "-c", line}, env: env, dir: r.c.Workspace}, fleet.ReasonTimeoutStartup)
		if o.ok() {
			continue
		}
		r.a.killAll()
		ready := protocol.Ready{Reason: fleet.ReasonPrepare, Output: o.output()}
		ready.Error = fmt.Sprintf("prepare[%d] `%s` %s", i, shorten(line, 200), o.what())
		if o.stopped == fleet.ReasonTimeoutStartup {
			ready.Reason = o.stopped
			ready.Error = fmt.Sprintf("prepare[%d] `%s` was still running after timeouts.startup (%s)", i, shorten(line, 200), w.Startup)
		}
		return ready
	}
	return protocol.Ready{}
}

// wake tells the sender of the present connection that there is more to send.
// It takes no lock: writers call it with their own held.
func (r *Runner) wake() {
	if c := r.conn.Load(); c != nil {
		c.signal()
	}
}

// hello says what the runner holds.
func (r *Runner) hello() protocol.Hello {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := protocol.Hello{
		Magic: protocol.Magic, Version: protocol.Version, Token: r.c.Token(),
		State: r.state, Now: time.Now().UnixNano(), Lost: r.a.lost,
	}
	if t := r.task; t != nil {
		h.Task, h.Fence = t.ref.Task, t.ref.Fence
		h.LogFrom, _ = t.log.bounds()
	}
	return h
}

// session keeps one connection; done when the report was stored.
func (r *Runner) session() (welcomed, done bool, err error) {
	rw, err := r.c.Dial(r.ctx)
	if err != nil {
		return false, false, err
	}
	stop := context.AfterFunc(r.ctx, func() { _ = rw.Close() })
	defer stop()
	pc := protocol.NewConn(rw, protocol.Limits{
		ReadTimeout: protocol.HandshakeTimeout, WriteTimeout: protocol.WriteTimeout, MaxMessage: protocol.MaxFromHost,
	})
	defer func() { _ = pc.Close() }()
	h := r.hello()
	if err := pc.Send(protocol.TypeHello, h); err != nil {
		return false, false, err
	}
	w, err := receiveWelcome(pc)
	if err != nil {
		return false, false, err
	}
	pc.SetLimits(protocol.Limits{WriteTimeout: protocol.WriteTimeout, MaxMessage: protocol.MaxFromHost})
	s := newSession(r, pc, h.State)
	r.conn.Store(s)
	r.mu.Lock()
	if r.state == protocol.StateNew {
		r.state = protocol.StatePreparing
		r.wg.Go(func() { r.prepare(w) })
	}
	r.mu.Unlock()
	err = s.serve()
	r.conn.Store(nil)
	return true, s.finished, err
}

func receiveWelcome(pc *protocol.Conn) (protocol.Welcome, error) {
	var w protocol.Welcome
	t, payload, err := pc.Receive()
	if err != nil {
		return w, err
	}
	switch t {
	case protocol.TypeWelcome:
		return w, protocol.DecodeLoose(t, payload, &w)
	case protocol.TypeRefuse:
		var f protocol.Refuse
		if err := protocol.DecodeLoose(t, payload, &f); err != nil {
			return w, err
		}
		return w, protocol.Violation("refused: %s", f.Why)
	}
	return w, protocol.Violation("%s instead of welcome", t)
}

// warmCodecs fills the caches of the JSON coder, so that the first claim does
// not pay for it.
func warmCodecs() {
	var c protocol.Claim
	_ = protocol.Decode(protocol.TypeClaim, []byte(
		`{"assignment":{"task":"t","fence":1,"repo":{"url":"u"},"setup":["s"],"command":["c"],"env":{"k":"v"},`+
			`"artifacts":["a"],"timeouts":{"queue":0,"startup":0,"run":0,"idle":0},"logBytes":1},"logOffset":0}`), &c)
	a, b := net.Pipe()
	go func() {
		pc := protocol.NewConn(a, protocol.Limits{})
		_ = pc.Send(protocol.TypeAccepted, protocol.TaskRef{})
		_ = pc.Send(protocol.TypePhase, protocol.Phase{})
		_ = a.Close()
	}()
	pc := protocol.NewConn(b, protocol.Limits{})
	for {
		if _, _, err := pc.Receive(); err != nil {
			_ = b.Close()
			return
		}
	}
}
