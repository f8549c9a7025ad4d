package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharedBase is the range of all sandboxes with images on kernels that cannot
// map owners; see [ImageUIDOffset].
const sharedBase = rangeBase

// ImageUIDOffset is what the image cache must add to the owners of the files
// it unpacks (image.Options.UIDOffset): 0 where layers can be shown to each
// sandbox as owned by its own ids (idmapped mounts below overlayfs, Linux
// 5.19), else the one range that all sandboxes with images then share.
func ImageUIDOffset() int { return imageOffset() }

var imageOffset = sync.OnceValue(func() int {
	if os.Geteuid() != 0 {
		return 0
	}
	dir, err := os.MkdirTemp("", "muster-idmap-")
	if err != nil {
		return sharedBase
	}
	defer os.RemoveAll(dir)
	layers := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	at, to := filepath.Join(dir, "at"), filepath.Join(dir, "to")
	for _, d := range append(layers, at, to) {
		if err := os.Mkdir(d, 0o755); err != nil {
			return sharedBase
		}
	}
	err = privately(func() error {
		mapped, err := bindLayers(layers, at, rangeBase+rangeSize)
		if err != nil {
			return err
		}
		return mountOverlay(mapped, to)
	})
	if err != nil {
		return sharedBase
	}
	return 0
})

// bindLayers mounts image layers, which are stored once, below at, as owned by
// the ids from base on. It returns where they are, in the same order.
func bindLayers(layers []string, at string, base int) ([]string, error) {
	ns, err := makeNamespace(base)
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	defer ns.Close()
	var out []string
	for i, from := range layers {
		to := filepath.Join(at, fmt.Sprint(i))
		if err := os.Mkdir(to, 0o755); err != nil {
			return nil, err
		}
		if err := bindMapped(from, to, int(ns.Fd())); err != nil {
			return nil, fmt.Errorf("layer %s: %w", from, err)
		}
		out = append(out, to)
	}
	return out, nil
}

func bindMapped(from, to string, ns int) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone the mount: %w", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(ns)}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("map the owners (needs Linux 5.19 and a file system that can): %w", err)
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// makeNamespace starts a process in a new user namespace, stopped before its
// first instruction, takes hold of the namespace and ends the process.
func makeNamespace(base int) (f *os.File, err error) {
	runtime.LockOSThread() // ptrace is of threads
	defer runtime.UnlockOSThread()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: rangeSize}}
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	_ = cmd.Process.Kill()
	var exit *exec.ExitError
	if werr := cmd.Wait(); werr != nil && !errors.As(werr, &exit) {
		err = errors.Join(err, werr)
	}
	return f, err
}
