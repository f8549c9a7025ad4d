package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startedUp is when what only starting has touched is given back.
const startedUp = 5 * time.Second

// giveBackStart gives memory back that only the start has used: heap, and the
// pages of the program itself. The adapters' libraries set up large tables that
// a fleet of one queue never looks at again, and most of what is resident after
// the start is their code and constants. What is needed again is read again from
// the page cache; measured on an idle fleet: 47 MiB resident before, 31 after
// (go run ./test/bench -only idle).
func giveBackStart(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(startedUp):
	}
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil //nolint:nilerr // it only saves memory
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil //nolint:nilerr // likewise
	}
	for _, m := range constantPages(maps, program) {
		// A mapping of a file that cannot be written to: every page is as in the
		// file, and reading it again gives the same. A failure saves nothing.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
	return nil
}

// pages is a range of addresses.
type pages struct{ from, to uintptr }

// constantPages finds the mappings of a program that are not writable in
// /proc/PID/maps (proc_pid_maps(5)).
func constantPages(maps []byte, program string) []pages {
	var out []pages
	for s := bufio.NewScanner(bytes.NewReader(maps)); s.Scan(); {
		var m pages
		var perms, offset, device string
		var inode uint64
		line := s.Text()
		if n, err := fmt.Sscanf(line, "%x-%x %s %s %s %d", &m.from, &m.to, &perms, &offset, &device, &inode); err != nil || n != 6 || inode == 0 {
			continue
		}
		if strings.HasSuffix(line, " "+program) && strings.HasPrefix(perms, "r-") && strings.HasSuffix(perms, "p") && m.from < m.to {
			out = append(out, m)
		}
	}
	return out
}
