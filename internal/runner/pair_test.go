//go:build linux

package runner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/sandbox/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is an in-memory fleet.TaskSink, strict about what it is told.
type sink struct {
	mu        sync.Mutex
	log       bytes.Buffer
	streams   map[fleet.Stream]*bytes.Buffer
	phases    []fleet.TaskState
	phaseAt   map[fleet.TaskState]time.Time
	patch     []byte
	artifacts map[string][]byte
	report    *fleet.RunReport
	lost      error
	ended     chan struct{} // Done or Lost
	once      sync.Once
	firstLog  chan time.Time
	onLog     func(n int64) error // called before a chunk is stored
	onDone    func() error
	onFile    func() error
}

func newSink() *sink {
	return &sink{
		streams: map[fleet.Stream]*bytes.Buffer{}, artifacts: map[string][]byte{},
		phaseAt: map[fleet.TaskState]time.Time{}, ended: make(chan struct{}), firstLog: make(chan time.Time, 1),
	}
}

func (s *sink) LogOffset() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.log.Len())
}

func (s *sink) Log(offset int64, _ time.Time, stream fleet.Stream, data []byte) error {
	if s.onLog != nil {
		if err := s.onLog(offset); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have := int64(s.log.Len())
	if offset > have {
		return fmt.Errorf("gap: log at %d, have %d", offset, have)
	}
	if skip := have - offset; skip > 0 {
		data = data[min(skip, int64(len(data))):]
	}
	s.log.Write(data)
	if s.streams[stream] == nil {
		s.streams[stream] = &bytes.Buffer{}
	}
	s.streams[stream].Write(data)
	if stream != fleet.StreamSystem {
		select {
		case s.firstLog <- time.Now():
		default:
		}
	}
	return nil
}

func (s *sink) Phase(p fleet.TaskState, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.phaseAt[p]; !ok {
		s.phases = append(s.phases, p)
	}
	s.phaseAt[p] = at
	return nil
}

func (s *sink) Patch(size int64, r io.Reader) error {
	b, err := s.file(size, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patch = b
	return err
}

func (s *sink) Artifact(a fleet.Artifact, r io.Reader) error {
	b, err := s.file(a.Bytes, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.artifacts[a.Path] = b
	return err
}

func (s *sink) file(size int64, r io.Reader) ([]byte, error) {
	if s.onFile != nil {
		if err := s.onFile(); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(r)
	if err == nil && int64(len(b)) != size {
		err = fmt.Errorf("%d bytes of %d", len(b), size)
	}
	return b, err
}

func (s *sink) Done(r fleet.RunReport) error {
	if s.onDone != nil {
		if err := s.onDone(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.report != nil {
		return errors.New("a second report")
	}
	s.report = &r
	s.once.Do(func() { close(s.ended) })
	return nil
}

func (s *sink) Lost(err error) {
	s.mu.Lock()
	s.lost = err
	s.mu.Unlock()
	s.once.Do(func() { close(s.ended) })
}

// out returns what a stream got so far.
func (s *sink) out(stream fleet.Stream) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.streams[stream]; b != nil {
		return b.String()
	}
	return ""
}

// box is a runner in this process and the directories of its sandbox.
type box struct {
	t         testing.TB
	dir       string
	socket    string
	workspace string
	o         link.Options
	s         *link.Session
	stop      context.CancelFunc
	ended     chan error // of the runner
	dialed    func(net.Conn) io.ReadWriteCloser
	config    func(*runner.Config)
}

const token = "secret-token"

func newBox(t testing.TB) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{
		t: t, dir: dir, socket: filepath.Join(dir, "s"), workspace: filepath.Join(dir, "workspace"),
		o: link.Options{Token: token, Startup: time.Minute}, ended: make(chan error, 1),
	}
	for _, d := range []string{b.workspace, filepath.Join(dir, "home"), filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *box) listen() {
	b.t.Helper()
	_ = os.Remove(b.socket)
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	b.s = link.Serve(l, b.o)
}

// start serves and starts the runner; both end with the test.
func (b *box) start() *box {
	b.t.Helper()
	b.listen()
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	c := runner.Config{
		Token: func() string { return token }, UID: -1, GID: -1, Workspace: b.workspace,
		Home: filepath.Join(b.dir, "home"), Temp: filepath.Join(b.dir, "tmp"),
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "unix", b.socket)
			if err == nil && b.dialed != nil {
				return b.dialed(c), nil
			}
			return c, err
		},
	}
	if b.config != nil {
		b.config(&c)
	}
	go func() { b.ended <- runner.Run(ctx, c) }()
	b.t.Cleanup(func() {
		_ = b.s.Close()
		cancel()
		select {
		case <-b.ended:
		case <-time.After(30 * time.Second):
			b.t.Error("the runner does not end")
		}
	})
	return b
}

// wait bounds what a test waits for.
func wait(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (b *box) ready() *box {
	b.t.Helper()
	if err := b.s.Ready(wait(b.t)); err != nil {
		b.t.Fatalf("ready: %v", err)
	}
	return b
}

func assign(command ...string) fleet.Assignment {
	return fleet.Assignment{Task: "t1", Fence: 7, Command: command, LogBytes: 1 << 30}
}

// finish waits for the report.
func (b *box) finish(s *sink) fleet.RunReport {
	b.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(60 * time.Second):
		b.t.Fatal("the task did not end")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.report == nil {
		b.t.Fatalf("lost: %v", s.lost)
	}
	return *s.report
}

// runTask is a whole task in a fresh box.
func runTask(t *testing.T, a fleet.Assignment) (*sink, fleet.RunReport) {
	t.Helper()
	b := newBox(t).start().ready()
	s := newSink()
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	return s, b.finish(s)
}

func isConflict(err error) bool { return errors.Is(err, fleet.ErrConflict) }
