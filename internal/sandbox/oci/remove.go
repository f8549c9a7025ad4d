package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// removeTime bounds the removal of what a failed Create left.
const removeTime = 30 * time.Second

// Destroy implements fleet.Sandboxes.
func (s *Sandboxes) Destroy(ctx context.Context, id fleet.SandboxID) error {
	if !fleet.ValidID("s", string(id)) {
		return fmt.Errorf("destroy %q: no sandbox id: %w", id, fleet.ErrInvalid)
	}
	if err := s.open(); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", id, err)
	}
	s.mu.Lock()
	b := s.boxes[id]
	if b == nil {
		b = newBox(id, s.dir(id), func() {})
		close(b.settled)
		b.err = fleet.ErrNotFound
		s.boxes[id] = b
	}
	s.mu.Unlock()
	b.cancel() // a Create under way
	<-b.settled
	b.mu.Lock()
	b.leaving = true
	b.mu.Unlock()
	rec := b.rec
	if rec.Runtime == "" {
		rec, _ = readRecord(b.dir) // unreadable: everything is tried
	}
	if err := s.remove(ctx, b, rec); err != nil {
		return fmt.Errorf("destroy sandbox %s: %w", id, err)
	}
	s.mu.Lock()
	if s.boxes[id] == b {
		delete(s.boxes, id)
	}
	s.mu.Unlock()
	return nil
}

// remove ends the sandbox and removes every trace, in an order that can be
// begun again from any point: what names the sandbox (its directory) last.
func (s *Sandboxes) remove(ctx context.Context, b *box, rec record) error {
	b.removing.Lock() // Destroy may be called twice at once
	defer b.removing.Unlock()
	if err := s.kill(ctx, b, rec); err != nil {
		return err
	}
	if b.session != nil {
		b.session.End(errDestroyed)
	}
	if err := b.release(); err != nil {
		s.o.Logger.Debug("release", "error", err)
	}
	if s.parent != "" {
		if err := s.group(b.id).Remove(ctx); err != nil {
			return err
		}
	}
	for _, r := range runtimesOf(rec) {
		c, err := s.cli(r)
		if errors.Is(err, fleet.ErrUnavailable) {
			continue // it is not installed, so it made nothing
		}
		if err == nil {
			err = c.remove(ctx, string(b.id), s.parent != "")
		}
		if err != nil {
			return err
		}
	}
	if err := unmountBelow(b.dir); err != nil {
		return err
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if rec.Base > 0 {
		s.ranges.give(rec.Base)
	}
	return nil
}

var errDestroyed = fmt.Errorf("the sandbox was destroyed: %w", fleet.ErrNotFound)

// kill ends all processes of the sandbox.
func (s *Sandboxes) kill(ctx context.Context, b *box, rec record) error {
	if rec.Init.Pid > 0 {
		if err := killProcess(ctx, rec.Init); err != nil {
			return err
		}
	} else if err := killStarting(ctx, b.dir); err != nil {
		return err
	}
	if s.parent == "" {
		return nil
	}
	return s.group(b.id).Kill(ctx)
}

// killStarting ends what an earlier process of ours, killed during a start,
// left of the runtime: the processes whose command line names the bundle.
func killStarting(ctx context.Context, dir string) error {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	mark := "\x00--bundle\x00" + dir + "\x00"
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), mark) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if p, err := identify(pid); err == nil {
			if err := killProcess(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// runtimesOf is who may know the sandbox.
func runtimesOf(rec record) []fleet.Runtime {
	if rec.Runtime != "" {
		return []fleet.Runtime{rec.Runtime}
	}
	return Strength
}

// unmountBelow removes mounts an unusual end may have left in our own
// namespace; normally there are none (see [privately]).
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for left mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	for i := len(points) - 1; i >= 0; i-- { // the newest first
		at := strings.ReplaceAll(points[i], `\040`, " ")
		if err := unix.Unmount(filepath.Clean(at), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return nil
}
