package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// adoptTime is how long a living runner may take to connect again; it tries
// at least once a second.
const adoptTime = 4 * time.Second

// Adopt implements fleet.Sandboxes.
func (s *Sandboxes) Adopt(ctx context.Context, spec fleet.SandboxSpec) (fleet.TaskID, int64, bool, error) {
	if err := errors.Join(ctx.Err(), s.open()); err != nil {
		return "", 0, false, fmt.Errorf("adopt sandbox %s: %w", spec.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTime)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.mu.Lock()
	b, held := s.boxes[spec.ID]
	if !held {
		b = newBox(spec.ID, s.dir(spec.ID), cancel)
		s.boxes[spec.ID] = b
	}
	s.mu.Unlock()
	if !held {
		b.err = s.takeOver(b)
		close(b.settled)
	}
	select {
	case <-b.settled:
	case <-ctx.Done():
		return "", 0, false, fmt.Errorf("adopt sandbox %s: %w", spec.ID, ctx.Err())
	}
	if b.err != nil {
		s.o.Logger.Info("sandbox cannot be adopted", "sandbox", spec.ID, "error", b.err)
		s.drop(b)
		return "", 0, false, nil
	}
	task, fence, alive := b.session.Held(ctx)
	if !alive {
		s.drop(b)
		return "", 0, false, nil
	}
	if task != "" {
		b.meter.claimed() // what it used before we came counts too
		s.watchTask(b)
	}
	return task, fence, true, nil
}

// drop forgets a sandbox that could not be adopted; Destroy removes it.
func (s *Sandboxes) drop(b *box) {
	_ = b.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boxes[b.id] == b {
		delete(s.boxes, b.id)
	}
}

// takeOver watches the container of an earlier process and listens for its
// runner.
func (s *Sandboxes) takeOver(b *box) error {
	var err error
	if b.rec, err = readRecord(b.dir); err != nil {
		return err
	}
	if b.rec.Init.Pid == 0 {
		return errors.New("its start was cut short")
	}
	if b.rec.Cgroup != "" && b.rec.Cgroup != s.group(b.id).Path() {
		return fmt.Errorf("its control group is %s, no longer ours", b.rec.Cgroup)
	}
	if b.watch, err = watchProcess(b.rec.Init); err != nil {
		return err
	}
	if err = s.serve(b); err != nil {
		return err
	}
	if b.volume, err = s.findVolume(b); err != nil {
		s.o.Logger.Warn("the disk use of a sandbox cannot be read", "sandbox", b.id, "error", err)
	}
	b.isolation = s.known(b)
	s.wg.Go(func() { s.guard(b) })
	return nil
}

// findVolume opens the volume of a running sandbox by mounting its loop
// device once more where nobody sees it: that works for every runtime.
func (s *Sandboxes) findVolume(b *box) (*os.File, error) {
	if b.rec.Volume != volumeLoop {
		return openPath(fmt.Sprintf("/proc/%d/root/workspace", b.rec.Init.Pid))
	}
	file := filepath.Join(b.dir, "volume")
	n := loopFor(file)
	if n < 0 {
		return nil, fmt.Errorf("no loop device holds %s", file)
	}
	var f *os.File
	err := privately(func() error {
		at := filepath.Join(b.dir, "run")
		dev, err := openLoop(n, b.dir)
		if err != nil {
			return err
		}
		defer dev.Close()
		if loopOf(n) != file { // it was freed and taken by another meanwhile
			return fmt.Errorf("loop device %d changed hands", n)
		}
		if err := unix.Mount(dev.Name(), at, "ext4", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOATIME, ""); err != nil {
			return fmt.Errorf("mount volume: %w", err)
		}
		f, err = openPath(at)
		return err
	})
	return f, err
}
