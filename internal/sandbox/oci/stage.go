package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/cgroup"
	"muster.dev/muster/internal/fleet"
)

// stage gathers, in the private mount namespace of the calling thread, what
// the runtime is to mount, at short paths that the sandbox's own root may walk
// even where our directory lies in one that only we may enter.
func (s *Sandboxes) stage(b *box, p *plan, img Image, c *cli) error {
	at, err := s.stageDir(p, c)
	if err != nil {
		return err
	}
	if err := unix.Mount("muster", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	to := paths{root: filepath.Join(at, "root"), volume: filepath.Join(at, "volume"), run: filepath.Join(at, "run")}
	for _, d := range []string{to.root, to.volume, to.run} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("stage: %w", err)
		}
	}
	if err := unix.Mount(p.paths.run, to.run, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("stage %s: %w", p.paths.run, err)
	}
	if err := s.stageRoot(b, p, img, at, to.root); err != nil {
		return err
	}
	if err := s.stageVolume(b, to.volume); err != nil {
		return err
	}
	if c.kind == fleet.RuntimeCrun && s.layout.Mode == cgroup.Hybrid {
		// crun takes a machine with both versions for one it does not know.
		if err := unix.Unmount(s.layout.Unified, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("hide %s from crun: %w", s.layout.Unified, err)
		}
	}
	p.paths = to
	return nil
}

// stageDir finds a directory to cover that holds nothing the runtime needs.
func (s *Sandboxes) stageDir(p *plan, c *cli) (string, error) {
	needed := []string{s.o.Dir, c.path}
	for _, m := range p.spec.Mounts {
		needed = append(needed, m.Source)
	}
next:
	for _, at := range []string{"/mnt", "/media", "/srv", "/run", "/tmp"} {
		if st, err := os.Stat(at); err != nil || !st.IsDir() {
			continue
		}
		for _, n := range needed {
			if real, err := filepath.EvalSymlinks(n); err == nil && strings.HasPrefix(real+"/", at+"/") {
				continue next
			}
			if strings.HasPrefix(n+"/", at+"/") {
				continue next
			}
		}
		return at, nil
	}
	return "", errors.New("stage: /mnt, /media, /srv, /run and /tmp are all missing or in use by the template's mounts")
}

// stageRoot binds the root, or lays it over the layers of an image.
func (s *Sandboxes) stageRoot(b *box, p *plan, img Image, at, to string) error {
	if len(img.Lower) == 0 {
		if err := unix.Mount(p.paths.root, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("stage %s: %w", p.paths.root, err)
		}
		return nil
	}
	layers := img.Lower
	if ImageUIDOffset() == 0 { // else they lie there as owned by the shared range
		var err error
		if layers, err = bindLayers(img.Lower, at, b.rec.Base); err != nil {
			return fmt.Errorf("stage image %s: %w", p.spec.Image, err)
		}
	}
	lower := append([]string{p.paths.root}, layers...)
	if err := mountOverlay(lower, to); err != nil {
		return fmt.Errorf("lay image %s over: %w", p.spec.Image, err)
	}
	return nil
}

// mountOverlay mounts read-only layers, topmost first.
func mountOverlay(lower []string, to string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	// One option holds at most 256 bytes before Linux 6.5 knew lowerdir+.
	each := true
	for _, l := range lower {
		if err := unix.FsconfigSetString(fs, "lowerdir+", l); err != nil {
			each = false
			break
		}
	}
	if !each {
		return unix.Mount("overlay", to, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":"))
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	return unix.MoveMount(m, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// stageVolume mounts the volume and keeps a hand on it, through which its
// filling can be read from outside as long as the sandbox lives.
func (s *Sandboxes) stageVolume(b *box, to string) error {
	var err error
	if b.rec.Volume == volumeLoop {
		err = mountLoop(filepath.Join(b.dir, "volume"), to, b.dir)
	} else {
		size := fmt.Sprintf("mode=755,size=%d", b.rec.Spec.Resources.DiskBytes)
		err = unix.Mount("volume", to, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, size)
		if err == nil {
			err = furnish(to)
		}
	}
	if err != nil {
		return fmt.Errorf("stage volume: %w", err)
	}
	if err := handOver(to, b.rec.Base+agentUID); err != nil {
		return err
	}
	b.volume, err = openPath(to)
	return err
}

// openPath opens a directory without the right to read it; enough for statfs.
func openPath(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}
