//go:build linux

package runner

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// agent starts, reaps and kills the agent's processes. They are started by one
// locked thread, whose reduced credentials they inherit.
type agent struct {
	uid, gid   int // the agent's
	switchUser bool
	noGroups   bool // this user namespace forbids setgroups
	lost       []string
	oom        *os.File // own oom_score_adj, where it must be raised for children
	oomOwn     []byte

	scope Scope
	jobs  chan func()
	quit  chan struct{} // closed when the thread is gone

	mu    sync.Mutex
	procs map[int]*process // not reaped yet
	held  map[int]int      // groups somebody of which holds our pipes
}

// process is one started process, the leader of its own session and group.
type process struct {
	pid    int
	done   chan struct{} // closed when it has been reaped
	status syscall.WaitStatus
}

// command says what to start; empty files are /dev/null.
type command struct {
	path  string // resolved program
	argv  []string
	env   []string
	dir   string
	stdin string // a file to be read as standard input; empty: nothing
	files [3]uintptr
	ctty  bool
}

// sharedUser is what is lost without a user of its own for the agent.
const sharedUser = "agent and runner share one user id: the agent cannot read or trace its runner, but can end it, and its own task with it"

func newAgent(c Config) *agent {
	a := &agent{uid: c.UID, gid: c.GID, scope: c.Scope, jobs: make(chan func()), quit: make(chan struct{}), procs: map[int]*process{}, held: map[int]int{}}
	if !c.Isolate {
		return a
	}
	if c.SameUID {
		a.lost = append(a.lost, sharedUser)
		a.openOOM()
		return a
	}
	a.switchUser = canSwitch(c.UID, c.GID)
	if b, err := os.ReadFile("/proc/self/setgroups"); err == nil && strings.HasPrefix(string(b), "deny") {
		a.noGroups = true
	}
	if !a.switchUser && os.Geteuid() != c.UID {
		a.lost = append(a.lost, "the runner may not change its user: the agent runs under the runner's uid")
	} else if !a.switchUser {
		a.lost = append(a.lost, "the agent shares the runner's uid")
	}
	a.openOOM()
	return a
}

// openOOM remembers the runner's own protection against the out-of-memory
// killer, which its children must not have.
func (a *agent) openOOM() {
	f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	own := strings.TrimSpace(string(b[:n]))
	if v, err := strconv.Atoi(own); err != nil || v >= 0 {
		_ = f.Close()
		return
	}
	a.oom, a.oomOwn = f, []byte(own)
}

// canSwitch reports whether processes can be started under uid and gid.
func canSwitch(uid, gid int) bool {
	if uid < 0 || os.Geteuid() == uid {
		return false
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if unix.Capget(&hdr, &sets[0]) != nil {
		return false
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return sets[0].Effective&need == need && mapped("/proc/self/uid_map", uid) && mapped("/proc/self/gid_map", gid)
}

// mapped reports whether id exists in this user namespace.
func mapped(file string, id int) bool {
	b, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(b)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err == nil && id >= inside && id-inside < n {
			return true
		}
	}
	return false
}

// loop serves jobs on the calling goroutine until stop is closed.
func (a *agent) loop(isolate bool, stop <-chan struct{}) {
	defer close(a.quit)
	runtime.LockOSThread()
	if isolate {
		// This thread's credentials are never the process's again; it must
		// die with its goroutine, so it is not unlocked.
		a.confineThread()
	} else {
		defer runtime.UnlockOSThread()
	}
	for {
		select {
		case f := <-a.jobs:
			f()
		case <-stop:
			return
		}
	}
}

// confineThread gives up, for this thread and what it starts, whatever the
// agent must not have.
func (a *agent) confineThread() {
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// EPERM without CAP_SETPCAP; no_new_privs and the loss of all
		// permitted capabilities then do the same.
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if a.switchUser {
		if unix.Capget(&hdr, &sets[0]) != nil {
			return
		}
		sets[0].Inheritable, sets[1].Inheritable = 0, 0
	}
	// With the user unchanged the thread keeps nothing at all.
	_ = unix.Capset(&hdr, &sets[0])
}

// do runs f on the thread; false when the runner is ending and f was not run.
func (a *agent) do(f func()) bool {
	done := make(chan struct{})
	select {
	case a.jobs <- func() { f(); close(done) }:
		<-done
		return true
	case <-a.quit:
		return false
	}
}

// as runs f on the thread with the agent's filesystem user: files are opened
// with the agent's rights and created as its own.
func (a *agent) as(f func()) bool {
	return a.do(func() {
		if !a.switchUser {
			f()
			return
		}
		_ = unix.Setfsgid(a.gid)
		_ = unix.Setfsuid(a.uid)
		defer func() {
			_ = unix.Setfsuid(os.Geteuid())
			_ = unix.Setfsgid(os.Getegid())
		}()
		f()
	})
}

// start executes c as the agent.
func (a *agent) start(c command) (p *process, err error) {
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: c.ctty}
	if a.switchUser {
		sys.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), NoSetGroups: a.noGroups}
	}
	attr := &syscall.ProcAttr{Dir: c.dir, Env: c.env, Files: c.files[:], Sys: sys}
	ran := a.do(func() {
		a.mu.Lock() // the reaper must not see the child before procs has it
		defer a.mu.Unlock()
		if a.oom != nil {
			_, _ = a.oom.WriteAt([]byte("0"), 0)
			defer func() { _, _ = a.oom.WriteAt(a.oomOwn, 0) }()
		}
		var pid int
		if pid, err = syscall.ForkExec(c.path, c.argv, attr); err == nil {
			p = &process{pid: pid, done: make(chan struct{})}
			a.procs[pid] = p
		}
	})
	if !ran {
		return nil, os.ErrClosed
	}
	if err == nil && a.scope == ScopeGroups {
		go a.wait(p)
	}
	return p, err
}

// wait reaps one process, where the runner is not pid 1.
func (a *agent) wait(p *process) {
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(p.pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	a.reaped(p.pid, status)
}

func (a *agent) reaped(pid int, status syscall.WaitStatus) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.procs[pid]; p != nil {
		delete(a.procs, pid)
		p.status = status
		close(p.done)
	}
}

// reap collects every dead process of the sandbox, its orphans included, until
// stop is closed. Pid 1 only.
func (a *agent) reap(stop <-chan struct{}) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGCHLD)
	defer signal.Stop(sig)
	for {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			a.reaped(pid, status)
		}
		select {
		case <-sig:
		case <-stop:
			return
		}
	}
}

// signal sends s to the process group of p, if p has not been reaped.
func (a *agent) signal(p *process, s syscall.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.procs[p.pid] == p {
		_ = syscall.Kill(-p.pid, s)
	}
}

// killPatience bounds the wait for killed processes to vanish; one stuck in
// the kernel must not hold the report back.
const killPatience = 5 * time.Second

// hold notes that a group has a member as long as one of our pipes is open, so
// that its number cannot mean another one; the function returned ends that.
func (a *agent) hold(pid int) (release func()) {
	a.mu.Lock()
	a.held[pid]++
	a.mu.Unlock()
	return func() {
		a.mu.Lock()
		if a.held[pid]--; a.held[pid] == 0 {
			delete(a.held, pid)
		}
		a.mu.Unlock()
	}
}

// killAll ends every process in the runner's scope.
func (a *agent) killAll() {
	if a.scope == ScopeGroups {
		a.killGroups()
		return
	}
	wait := 100 * time.Microsecond
	for begin := time.Now(); time.Since(begin) < killPatience; {
		if a.scope == ScopeAll && errors.Is(syscall.Kill(-1, syscall.SIGKILL), syscall.ESRCH) {
			return
		}
		if a.scope == ScopeChildren && killDescendants() == 0 {
			return
		}
		time.Sleep(wait)
		wait = min(2*wait, 20*time.Millisecond)
	}
}

func (a *agent) killGroups() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for pid := range a.procs {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	for pid := range a.held {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// killDescendants kills what descends from this process, which adopts the
// orphans among it, and returns how many there were. Zombies are left to the
// reaper and not counted.
func killDescendants() int {
	parent := map[int]int{}
	names, _ := os.ReadDir("/proc")
	for _, e := range names {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) > 1 && f[0] != "Z" {
			parent[pid], _ = strconv.Atoi(f[1])
		}
	}
	self, killed := os.Getpid(), 0
	for pid := range parent {
		for p, depth := parent[pid], 0; p != 0 && depth < len(parent)+1; p, depth = parent[p], depth+1 {
			if p == self {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				killed++
				break
			}
		}
	}
	return killed
}
