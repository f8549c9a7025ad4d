package doctor

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Space is what is left on a file system.
type Space struct {
	FreeBytes, TotalBytes int64
	FreeFiles             int64 // inodes; 0 with TotalFiles 0 where there is no bound
	TotalFiles            int64
	Kind                  string // ext4, xfs, btrfs, tmpfs, nfs, overlay, …
}

// Host is the machine as the checks see it. All methods are read-only but
// SyncLatency; paths are absolute.
type Host interface {
	UID() int
	Kernel() string // release, as uname -r
	ReadFile(path string) ([]byte, error)
	Exists(path string) bool
	Writable(path string) bool
	LookPath(program string) (string, error)
	Run(ctx context.Context, program string, args ...string) ([]byte, error)
	Env(key string) string
	Username() string
	Space(path string) (Space, error)
	// SyncLatency times write+fsync of a small file in dir: median and worst.
	SyncLatency(ctx context.Context, dir string) (median, worst time.Duration, err error)
	OpenFiles() (soft, hard uint64)
	Now() time.Time
	// ClockSynchronised is the kernel's own opinion; known is false where it
	// cannot be asked.
	ClockSynchronised() (synchronised, known bool)
	// Drift compares the wall clock with the monotonic clock over a short
	// while: how far the wall clock jumped.
	Drift(ctx context.Context) time.Duration
	LoadZone(name string) error
	// Listening asks what answers at address: nothing, a muster, or something
	// else (with its name or first line).
	Listening(ctx context.Context, address string) (who string, inUse bool)
}

// Machine is the Host this process runs on.
type Machine struct{}

var _ Host = Machine{}

// UID is the effective user.
func (Machine) UID() int { return os.Geteuid() }

// Kernel is uname's release.
func (Machine) Kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// ReadFile reads a whole file.
func (Machine) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// Exists reports whether path is there.
func (Machine) Exists(path string) bool { _, err := os.Stat(path); return err == nil }

// Writable reports whether the effective user may write to path.
func (Machine) Writable(path string) bool {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil
}

// LookPath finds a program, in the system directories too, which a user's
// PATH often lacks.
func (Machine) LookPath(program string) (string, error) {
	if p, err := exec.LookPath(program); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/local/bin"} {
		if p, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// Run runs a program for at most five seconds and returns its output.
func (Machine) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.WaitDelay = time.Second
	return c.CombinedOutput()
}

// Env reads an environment variable.
func (Machine) Env(key string) string { return os.Getenv(key) }

// Username is the login name from the environment, for messages and the
// subordinate id files.
func (Machine) Username() string {
	for _, k := range []string{"USER", "LOGNAME"} {
		if v := os.Getenv(k); v != "" {
			return v
		}
	}
	return ""
}

// fileSystems names the magic numbers of statfs(2) that matter here.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.FUSE_SUPER_MAGIC: "fuse", unix.F2FS_SUPER_MAGIC: "f2fs", unix.CIFS_SUPER_MAGIC: "cifs",
	unix.SMB2_SUPER_MAGIC: "smb", 0x2fc12fc1: "zfs", unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph",
}

// Space reads statfs.
func (Machine) Space(path string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	kind := fileSystems[s.Type]
	if kind == "" {
		kind = "unknown"
	}
	return Space{
		FreeBytes: int64(s.Bavail) * s.Bsize, TotalBytes: int64(s.Blocks) * s.Bsize,
		FreeFiles: int64(s.Ffree), TotalFiles: int64(s.Files), Kind: kind,
	}, nil
}

// SyncLatency writes and syncs 4 KiB fifteen times, as a committed
// transaction does.
func (Machine) SyncLatency(ctx context.Context, dir string) (time.Duration, time.Duration, error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	var took []time.Duration
	block := make([]byte, 4096)
	for i := 0; i < 15 && ctx.Err() == nil; i++ {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, 0, err
		}
		took = append(took, time.Since(start))
	}
	if len(took) == 0 {
		return 0, 0, context.Cause(ctx)
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	return took[len(took)/2], slices.Max(took), nil
}

// OpenFiles reads RLIMIT_NOFILE. Go raises the soft limit to the hard one at
// start, so the hard one is what counts.
func (Machine) OpenFiles() (soft, hard uint64) {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 0, 0
	}
	return r.Cur, r.Max
}

// Now is the wall clock.
func (Machine) Now() time.Time { return time.Now() }

// ClockSynchronised asks adjtimex(2).
func (Machine) ClockSynchronised() (bool, bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, false
	}
	const timeError = 5 // TIME_ERROR of adjtimex(2)
	return state != timeError && t.Status&unix.STA_UNSYNC == 0, true
}

// Drift samples for 100 ms.
func (Machine) Drift(ctx context.Context) time.Duration {
	start := time.Now()
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
	}
	end := time.Now()
	// Round strips the monotonic reading: wall difference less monotonic one.
	return end.Round(0).Sub(start.Round(0)) - end.Sub(start)
}

// LoadZone looks a zone up in the time zone database.
func (Machine) LoadZone(name string) error { _, err := time.LoadLocation(name); return err }

// Listening dials address and asks what answers who it is: a muster refuses a
// caller without a token with a realm of its own.
func (Machine) Listening(ctx context.Context, address string) (string, bool) {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", false
	}
	_ = c.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/version", nil)
	if err != nil {
		return "another program", true
	}
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "a program that does not speak HTTP", true
	}
	defer func() { _ = resp.Body.Close() }()
	if strings.Contains(resp.Header.Get("WWW-Authenticate"), `realm="muster"`) {
		return "muster", true
	}
	if name := resp.Header.Get("Server"); name != "" {
		return name, true
	}
	return "another web server", true
}
