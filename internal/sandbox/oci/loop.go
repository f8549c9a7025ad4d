package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// From linux/loop.h.
const (
	loopAutoclear = 4
	loopDirectIO  = 16
	loopMajor     = 7
	// loopBlock is the logical block size; direct I/O wants that of the file
	// system below, which is 4096 nearly everywhere.
	loopBlock = 4096
)

// attachLoop makes a loop device of the file. The device frees itself when the
// returned file and every mount of it are closed (autoclear), so nothing leaks
// from a crash at any point.
func attachLoop(image *os.File, scratch string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer control.Close()
	for range 1000 { // another process may take the free device first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := openLoop(n, scratch)
		if err != nil {
			return nil, err
		}
		err = configureLoop(dev, image)
		if err == nil {
			return dev, nil
		}
		_ = dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("configure loop device %d: %w", n, err)
		}
	}
	return nil, errors.New("attach loop device: other processes kept taking the free one")
}

func configureLoop(dev, image *os.File) error {
	c := unix.LoopConfig{Fd: uint32(image.Fd()), Size: loopBlock}
	c.Info.Flags = loopAutoclear | loopDirectIO
	err := unix.IoctlLoopConfigure(int(dev.Fd()), &c)
	if errors.Is(err, unix.EINVAL) { // the file system below has no direct I/O
		c.Info.Flags = loopAutoclear
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
	}
	return err
}

// openLoop opens device n, making a node for it where /dev is not managed by
// the kernel.
func openLoop(n int, scratch string) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	node := filepath.Join(scratch, fmt.Sprintf("loop%d", n))
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", node, err)
	}
	return os.OpenFile(node, os.O_RDWR|unix.O_CLOEXEC, 0)
}

// loopOf returns the file behind a loop device, or "".
func loopOf(n int) string {
	b, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", n))
	if err != nil {
		return ""
	}
	return string(b[:max(0, len(b)-1)])
}

// loopFor returns the number of the device backed by the file, or -1.
func loopFor(file string) int {
	found, _ := filepath.Glob("/sys/block/loop*")
	for _, dir := range found {
		var n int
		if _, err := fmt.Sscanf(filepath.Base(dir), "loop%d", &n); err == nil && loopOf(n) == file {
			return n
		}
	}
	return -1
}
