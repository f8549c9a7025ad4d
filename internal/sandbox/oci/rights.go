package oci

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rights is what we may do beyond being root: container hosts often hold some
// capabilities back.
type rights struct {
	resources bool   // raise limits, protect the runner from the OOM killer
	maxFiles  uint64 // hard limit of open files
}

func detectRights() rights {
	r := rights{maxFiles: 1024}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			r.resources = err == nil && bits&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		r.maxFiles = l.Max
	}
	return r
}

// files is the limit of open files that can be given.
func (r rights) files(want int64) uint64 {
	if r.resources {
		return uint64(want)
	}
	return min(uint64(want), r.maxFiles)
}
