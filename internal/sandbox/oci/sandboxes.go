package oci

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/cgroup"
	"muster.dev/muster/internal/fleet"
)

// Sandboxes is fleet.Sandboxes for this machine; use New.
type Sandboxes struct {
	o        Options
	layout   cgroup.Layout
	parent   string // cgroup path above the sandboxes; empty: no cgroups
	noCgroup string // why
	rootless *rootless
	rights   rights
	volumes  *volumes
	roots    *roots
	ranges   *ranges
	picker   picker
	starts   *gate

	exits  chan fleet.SandboxExit
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	boxes map[fleet.SandboxID]*box
	clis  map[fleet.Runtime]*cli
}

var (
	_ fleet.Sandboxes = (*Sandboxes)(nil)
	_ fleet.Hurrier   = (*Sandboxes)(nil)
)

// Names of the caches in Options.Dir. Sandbox ids begin with "s".
const (
	dirRoots   = ".roots"
	dirVolumes = ".volumes"
	dirState   = ".state"
	dirRunners = ".runners"
)

// New opens the adapter. It makes directories and looks at the machine, and
// touches no sandbox: see List, Adopt and Destroy.
func New(ctx context.Context, o Options) (*Sandboxes, error) {
	setMonitor()
	o = o.withDefaults()
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("open sandboxes: directory %q is not absolute: %w", o.Dir, fleet.ErrInvalid)
	}
	for _, d := range []string{"", dirRoots, dirVolumes, dirState, dirRunners} {
		if err := os.MkdirAll(filepath.Join(o.Dir, d), 0o711); err != nil {
			return nil, fmt.Errorf("open sandboxes: %w", err)
		}
	}
	runner, err := keepRunner(filepath.Join(o.Dir, dirRunners), o.Runner)
	if err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	o.Runner = runner
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, fmt.Errorf("open sandboxes: %w", err)
	}
	s := &Sandboxes{
		o: o, layout: layout, rootless: detectRootless(), rights: detectRights(),
		roots:  &roots{dir: filepath.Join(o.Dir, dirRoots)},
		ranges: newRanges(o.Dir), starts: newGate(o.Parallel, max(1, runtime.NumCPU()/2)),
		exits: make(chan fleet.SandboxExit, 1024), boxes: map[fleet.SandboxID]*box{},
		clis: map[fleet.Runtime]*cli{},
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.setParent()
	if s.rootless == nil {
		s.volumes = newVolumes(filepath.Join(o.Dir, dirVolumes))
	}
	s.holdRanges()
	s.tidy()
	s.wg.Go(func() { // takes a moment the first time; Create waits for it or builds it itself
		if _, err := s.roots.find(rootKind{host: true}); err != nil {
			o.Logger.Warn("preparing the root of the image host", "error", err)
		}
	})
	return s, nil
}

// setParent decides where control groups are made: below what the service
// manager handed over, else at the root of the machine's or the container's
// own hierarchy. The name tells fleets on one machine apart.
func (s *Sandboxes) setParent() {
	at := s.layout.Delegated()
	switch {
	case s.layout.Mode == cgroup.None:
		s.noCgroup = "this machine has no control groups"
	case at == "" || s.rootless != nil && s.layout.Mode != cgroup.V2:
		s.noCgroup = "no control group was delegated to this user"
	default:
		if err := s.layout.Enter(); err != nil {
			s.noCgroup = err.Error()
			return
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(s.o.Dir))
		s.parent = filepath.Join(at, "muster", fmt.Sprintf("%08x", h.Sum32()))
	}
}

// keepRunner puts the runner beside the sandboxes, so that each can have it
// by a hard link: one file in memory, and it stays when muster is upgraded.
func keepRunner(dir, path string) (string, error) {
	if path == "" {
		return "", nil // to remove sandboxes only
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the runner: %w", err)
	}
	h := fnv.New64a()
	_, _ = h.Write(b)
	at := filepath.Join(dir, fmt.Sprintf("%016x", h.Sum64()))
	if st, err := os.Stat(at); err == nil && st.Size() == int64(len(b)) {
		return at, os.Chtimes(at, time.Time{}, time.Now())
	}
	tmp := at + ".new"
	if err := os.WriteFile(tmp, b, 0o755); err != nil {
		return "", fmt.Errorf("keep the runner: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("keep the runner: %w", err)
	}
	return at, os.Rename(tmp, at)
}

// unused is how long a cached root or runner is kept without a use.
const unused = 7 * 24 * time.Hour

// tidy removes roots and runners of former versions, when no sandbox can have
// them mounted.
func (s *Sandboxes) tidy() {
	if ids, err := s.List(s.ctx); err != nil || len(ids) > 0 {
		return
	}
	for _, d := range []string{dirRoots, dirRunners, dirVolumes} {
		entries, _ := os.ReadDir(filepath.Join(s.o.Dir, d))
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && time.Since(info.ModTime()) > unused {
				_ = os.RemoveAll(filepath.Join(s.o.Dir, d, e.Name()))
			}
		}
	}
}

// holdRanges marks the ids of sandboxes found on disk as taken.
func (s *Sandboxes) holdRanges() {
	entries, _ := os.ReadDir(s.o.Dir)
	for _, e := range entries {
		if r, err := readRecord(filepath.Join(s.o.Dir, e.Name())); err == nil && r.Base > 0 {
			s.ranges.hold(r.Base)
		}
	}
}

// cli returns the driver of a runtime that is named, not auto.
func (s *Sandboxes) cli(r fleet.Runtime) (*cli, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clis[r]; c != nil {
		return c, nil
	}
	path, err := lookRuntime(r, s.o.Runtimes, s.o.Bin)
	if err != nil {
		return nil, err
	}
	c := newCLI(r, path, filepath.Join(s.o.Dir, dirState), s.o.Platform, s.rootless != nil)
	if err := os.MkdirAll(c.root, 0o711); err != nil {
		return nil, fmt.Errorf("runtime %s: %w", r, err)
	}
	s.clis[r] = c
	return c, nil
}

// group returns the control group of a sandbox.
func (s *Sandboxes) group(id fleet.SandboxID) cgroup.Group {
	return s.layout.Group(filepath.Join(s.parent, string(id)))
}

func (s *Sandboxes) dir(id fleet.SandboxID) string { return filepath.Join(s.o.Dir, string(id)) }

// List implements fleet.Sandboxes: what has a directory, a control group or
// state with a runtime.
func (s *Sandboxes) List(ctx context.Context) ([]fleet.SandboxID, error) {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	names, err := namesIn(s.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	if s.parent != "" {
		groups, err := s.layout.Group(s.parent).Children()
		if err != nil {
			return nil, fmt.Errorf("list sandboxes: %w", err)
		}
		names = append(names, groups...)
	}
	for r := range programs {
		state, err := namesIn(filepath.Join(s.o.Dir, dirState, string(r)))
		if err != nil {
			return nil, fmt.Errorf("list sandboxes: %w", err)
		}
		names = append(names, state...)
	}
	var ids []fleet.SandboxID
	for _, n := range names {
		n, _, _ = strings.Cut(n, "_") // gVisor: id_sandbox:id.state
		if fleet.ValidID("s", n) {
			ids = append(ids, fleet.SandboxID(n))
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// open is an error once the adapter is closed.
func (s *Sandboxes) open() error {
	if s.ctx.Err() != nil {
		return fmt.Errorf("sandboxes are closed: %w", fleet.ErrUnavailable)
	}
	return nil
}

// Hurry implements fleet.Hurrier.
func (s *Sandboxes) Hurry(waiting bool) { s.starts.hurry(waiting) }

// Exited implements fleet.Sandboxes.
func (s *Sandboxes) Exited() <-chan fleet.SandboxExit { return s.exits }

func (s *Sandboxes) announce(e fleet.SandboxExit) {
	select {
	case s.exits <- e:
	case <-s.ctx.Done():
	}
}

// Close implements fleet.Sandboxes. Creates that are under way fail and are
// undone.
func (s *Sandboxes) Close() error {
	s.cancel()
	s.mu.Lock()
	boxes := make([]*box, 0, len(s.boxes))
	for _, b := range s.boxes {
		boxes = append(boxes, b)
	}
	s.mu.Unlock()
	var errs []error
	for _, b := range boxes {
		<-b.settled
		errs = append(errs, b.release())
	}
	s.wg.Wait()
	if s.parent != "" {
		s.layout.Group(s.parent).RemoveEmpty()
	}
	return errors.Join(errs...)
}

// find returns a sandbox this process holds and that has not ended.
func (s *Sandboxes) find(id fleet.SandboxID) (*box, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	b := s.boxes[id]
	s.mu.Unlock()
	if b == nil || !b.ready() {
		return nil, fmt.Errorf("sandbox %s: %w", id, fleet.ErrNotFound)
	}
	return b, nil
}
