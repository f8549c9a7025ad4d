package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a pseudo-terminal with a program on it.
type screen struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	mu     sync.Mutex
	shown  bytes.Buffer
	read   chan struct{}
}

// onTerminal starts this test's program as muster on a terminal of 24 by 100.
func onTerminal(t *testing.T, env []string, args ...string) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slave.Close() }()
	s := &screen{t: t, master: master, read: make(chan struct{})}
	s.cmd = exec.Command(os.Args[0], args...)
	s.cmd.Env = append(append(os.Environ(), "BE_MUSTER=1", "TERM=xterm-256color", "NO_COLOR="), env...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.shown.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return // EIO: the program has closed the terminal
			}
		}
	}()
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = master.Close() })
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// await waits until the screen shows text.
func (s *screen) await(text string) {
	s.t.Helper()
	for range 1000 {
		if strings.Contains(s.text(), text) {
			return
		}
		time.Sleep(20 * time.Millisecond) // another process is waited for
	}
	s.t.Fatalf("%q did not show:\n%q", text, s.text())
}

func (s *screen) press(keys string) { _, _ = s.master.WriteString(keys) }

// end waits for the program and returns its exit code.
func (s *screen) end() int {
	_ = s.cmd.Wait()
	<-s.read
	return s.cmd.ProcessState.ExitCode()
}

// TestOnATerminal: colours where they belong, dangerous sequences shown and
// not obeyed, tables cut to the width, and Ctrl-C once and twice.
func TestOnATerminal(t *testing.T) {
	env := serverForTest(t)

	follow := onTerminal(t, env, "submit", "--follow", "--name", "red", "--", "raw")
	if code := follow.end(); code != 0 || strings.Contains(follow.text(), "\x1b]") || !strings.Contains(follow.text(), "␛]0;owned␇␀\ufffd") {
		t.Errorf("exit %d: %q", code, follow.text())
	}
	list := onTerminal(t, env, "tasks")
	if code := list.end(); code != 0 || !strings.Contains(list.text(), "\x1b[32msucceeded\x1b[0m") {
		t.Errorf("exit %d: %q", code, list.text())
	}
	long := onTerminal(t, env, "submit", "--wait", "--name", strings.Repeat("n", 60), "--", "exit", "3")
	long.end()
	list = onTerminal(t, append(env, "NO_COLOR=1"), "tasks")
	list.end()
	for _, l := range strings.Split(list.text(), "\r\n") {
		if len([]rune(l)) > 100 || strings.Contains(l, "\x1b") {
			t.Errorf("%d columns: %q", len([]rune(l)), l)
		}
	}

	once := onTerminal(t, env, "submit", "--follow", "--", "sleep", "1h")
	once.await("up")
	once.press("\x03")
	once.await("Ctrl-C again to cancel")
	if code := once.end(); code != exitInterrupted || strings.Contains(once.text(), "cancelling") {
		t.Errorf("once: exit %d: %q", code, once.text())
	}
	twice := onTerminal(t, env, "submit", "--follow", "--", "sleep", "1h")
	twice.await("up")
	twice.press("\x03")
	twice.await("Ctrl-C again to cancel")
	twice.press("\x03")
	if code := twice.end(); code != exitInterrupted || !strings.Contains(twice.text(), "cancelled") {
		t.Errorf("twice: exit %d: %q", code, twice.text())
	}
}

// TestExecOnATerminal: the command learns the size, and keys go to it raw.
func TestExecOnATerminal(t *testing.T) {
	env := serverForTest(t)
	task := onTerminal(t, env, "submit", "--follow", "--name", "run", "--", "sleep", "1h")
	task.await("up")
	sh := onTerminal(t, env, "exec", "-t", "run", "--", "sh")
	if code := sh.end(); code != 0 || !strings.Contains(sh.text(), "sh tty=true 24x100") {
		t.Errorf("exit %d: %q", code, sh.text())
	}
	keys := onTerminal(t, env, "exec", "-t", "run", "--", "keys")
	keys.await("ready")
	keys.press("a\x03b")
	if code := keys.end(); code != 0 || !strings.Contains(keys.text(), `"a\x03b"`) {
		t.Errorf("exit %d: %q", code, keys.text())
	}
}
