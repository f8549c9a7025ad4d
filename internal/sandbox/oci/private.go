package oci

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// privately runs f on a thread of its own in a mount namespace of its own,
// copied from ours, and returns what f returns. Processes that f starts are
// born in that namespace. What f mounts is seen by nobody else and is unmounted
// by the kernel when the last process in the namespace, or in a copy of it,
// has ended: so mounts made for a sandbox die with the sandbox and cannot leak,
// whatever happens to the control plane. Needs CAP_SYS_ADMIN.
//
// f must not start goroutines that rely on the namespace: they run elsewhere.
func privately(f func() error) error {
	done := make(chan error, 1)
	onOwnThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("unshare the mount namespace: %w", err)
			return
		}
		// Slave: what the host unmounts later goes away here too, and nothing
		// made here reaches the host.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			done <- fmt.Errorf("make mounts private: %w", err)
			return
		}
		done <- f()
	})
	return <-done
}

// onOwnThread runs f on a fresh locked thread that ends with it. Never the
// main thread: Go does not end that one, and /proc/self is its view.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(f) // runs on another thread, as this one is locked
			runtime.UnlockOSThread()
			return
		}
		f() // not unlocked: the thread ends with the goroutine
	}()
}
