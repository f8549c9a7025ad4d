//go:build linux

package program

import (
	"syscall"
	"unsafe"
)

// kernelAction is the kernel's struct sigaction on 64-bit machines.
type kernelAction struct {
	handler, flags, restorer, mask uint64
}

// unignore gives every signal that this process was started with as ignored
// its default action back, since children inherit what is ignored: a control
// plane started with nohup must not make agents deaf to SIGHUP. The os/signal
// package cannot do it for the signals the Go runtime keeps for itself (32,
// 33). Signals with a handler are left alone; execve resets those.
func unignore() {
	const ignored = 1 // SIG_IGN
	for sig := uintptr(1); sig <= 64; sig++ {
		var now, none kernelAction
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if errno != 0 || now.handler != ignored {
			continue
		}
		// SIGKILL and SIGSTOP cannot be ignored, so this cannot fail.
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
	}
}
