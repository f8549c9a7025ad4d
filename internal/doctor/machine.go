package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	gib = 1 << 30
	// A task's end is one synchronous transaction; above this, settling
	// dominates the fleet's throughput.
	slowSync = 10 * time.Millisecond
)

func size(n int64) string {
	if n >= gib {
		return fmt.Sprintf("%.1f GiB", float64(n)/gib)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// existing is the nearest directory above path that is there.
func existing(h Host, path string) string {
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		if h.Exists(p) || p == filepath.Dir(p) {
			return p
		}
	}
}

func checkDataDir(ctx context.Context, h Host, o Options) []Finding {
	dir := existing(h, o.DataDir)
	where := Finding{Check: "data-directory", Level: OK, Found: o.DataDir}
	if dir != o.DataDir {
		where.Found += " (not there yet)"
	}
	if !h.Writable(dir) {
		where.Level = Fail
		where.Found += ": you may not write to " + dir
		where.Means = "muster up cannot keep its database"
		where.Mend = "set MUSTER_HOME to a directory of yours, or run as root"
		return one(where)
	}
	space, err := h.Space(dir)
	if err != nil {
		where.Level, where.Found = Warn, err.Error()
		return one(where)
	}
	where.Found += ", " + space.Kind
	switch space.Kind {
	case "nfs", "cifs", "smb", "9p", "fuse":
		where.Level = Fail
		where.Means = "file locks and fsync are not reliable there: the database can be damaged"
		where.Mend = "set MUSTER_HOME to a directory on a local disk"
	case "tmpfs":
		where.Level = Warn
		where.Means = "it is kept in memory: a reboot loses every task"
		where.Mend = "set MUSTER_HOME to a directory on a disk"
	}
	return []Finding{where, judgeSpace(space), checkSync(ctx, h, dir)}
}

func judgeSpace(s Space) Finding {
	f := Finding{Check: "disk-space", Level: OK, Found: size(s.FreeBytes) + " free of " + size(s.TotalBytes)}
	const mend = "free some space, or set MUSTER_HOME to a larger disk"
	switch {
	case s.FreeBytes < 1*gib:
		f.Level, f.Mend = Fail, mend
		f.Means = "sandboxes and logs will fill the disk; submission is then refused"
	case s.FreeBytes < 10*gib:
		f.Level, f.Mend = Warn, mend
		f.Means = "one sandbox may write up to its disk limit, 10 GiB unless the template says otherwise"
	case s.TotalFiles > 0 && s.FreeFiles < 100_000:
		f.Level, f.Mend = Warn, mend
		f.Found += fmt.Sprintf(", but only %d inodes", s.FreeFiles)
		f.Means = "an unpacked image has some ten thousand files"
	}
	return f
}

func checkSync(ctx context.Context, h Host, dir string) Finding {
	f := Finding{Check: "fsync", Level: OK}
	ctx, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	median, worst, err := h.SyncLatency(ctx, dir)
	if err != nil {
		f.Level, f.Found = Fail, err.Error()
		f.Means, f.Mend = "an accepted task cannot be made durable", "look at dmesg for disk errors"
		return f
	}
	f.Found = fmt.Sprintf("%s median, %s worst of 15", median.Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
	if median > slowSync {
		f.Level = Warn
		f.Means = fmt.Sprintf("every submission and every completion waits for the disk: about %d a second at most, one by one", max(1, int(time.Second/median)))
		f.Mend = "put the data directory on an SSD (MUSTER_HOME)"
	}
	return f
}

func checkMemory(_ context.Context, h Host, _ Options) []Finding {
	kib := map[string]int64{}
	for line := range strings.Lines(text(h, "/proc/meminfo")) {
		fields := strings.Fields(line)
		if len(fields) >= 2 {
			kib[strings.TrimSuffix(fields[0], ":")], _ = strconv.ParseInt(fields[1], 10, 64)
		}
	}
	total, free := kib["MemTotal"]<<10, kib["MemAvailable"]<<10
	f := Finding{Check: "memory", Level: OK, Found: size(free) + " available of " + size(total)}
	switch {
	case total == 0:
		f.Level, f.Found = Warn, "/proc/meminfo could not be read"
	case free < gib/2:
		f.Level = Fail
		f.Means = "less than a single small sandbox needs"
		f.Mend = "stop something, or use a larger machine"
	case free < 2*gib:
		f.Level = Warn
		f.Means = "one sandbox of the default template may take 2 GiB"
		f.Mend = "lower spec.templates[].resources.memory, or use a larger machine"
	}
	return one(f)
}

func checkLimits(_ context.Context, h Host, _ Options) []Finding {
	_, hard := h.OpenFiles()
	files := Finding{Check: "open-files", Level: OK, Found: fmt.Sprintf("at most %d per process", hard)}
	if hard < 8192 {
		files.Level = Warn
		files.Means = fmt.Sprintf("the control plane holds about 8 open files per sandbox: enough for some %d", hard/8)
		files.Mend = "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit"
	}
	pids := Finding{Check: "processes", Level: OK}
	if n, ok := number(h, "/proc/sys/kernel/pid_max"); ok {
		pids.Found = fmt.Sprintf("kernel.pid_max = %d", n)
		if n < 65536 {
			pids.Level = Warn
			pids.Means = fmt.Sprintf("enough for about %d sandboxes of 512 processes each", n/512)
			pids.Mend = "sysctl -w kernel.pid_max=4194304"
		}
	} else {
		pids.Level, pids.Found = Warn, "kernel.pid_max could not be read"
	}
	watches := Finding{Check: "inotify", Level: OK}
	n, ok := number(h, "/proc/sys/fs/inotify/max_user_instances")
	watches.Found = fmt.Sprintf("%d instances a user", n)
	if ok && n < 512 {
		watches.Level = Warn
		watches.Means = "file watchers (test runners, language servers) of many agents share this bound"
		watches.Mend = "sysctl -w fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=1048576"
	}
	return []Finding{files, pids, watches}
}

func checkClock(ctx context.Context, h Host, _ Options) []Finding {
	f := Finding{Check: "clock", Level: OK, Found: h.Now().Format(time.RFC3339)}
	drift := h.Drift(ctx)
	synchronised, known := h.ClockSynchronised()
	switch {
	case h.Now().Year() < 2025:
		f.Level = Fail
		f.Means, f.Mend = "the clock is wrong: ages, schedules and certificates will be too", "timedatectl set-ntp true"
	case drift > 20*time.Millisecond || drift < -20*time.Millisecond:
		f.Level = Warn
		f.Found += fmt.Sprintf("; the wall clock jumped %s against the monotonic one", drift.Round(time.Millisecond))
		f.Means, f.Mend = "schedules may fire twice or late around a jump", "timedatectl set-ntp true"
	case known && !synchronised:
		f.Level = Warn
		f.Found += "; not synchronised by the kernel's account"
		f.Means, f.Mend = "schedules and ages drift with the clock", "timedatectl set-ntp true"
	}
	zones := Finding{Check: "time-zones", Level: OK, Found: "database found"}
	if err := h.LoadZone("Europe/Warsaw"); err != nil {
		zones.Level, zones.Found = Fail, "no time zone database"
		zones.Means = "floors and schedules with a time zone are refused"
		zones.Mend = "apt-get install -y tzdata"
	}
	return []Finding{f, zones}
}

func checkPort(ctx context.Context, h Host, o Options) []Finding {
	f := Finding{Check: "port", Level: OK, Found: o.Listen + " is free"}
	who, used := h.Listening(ctx, o.Listen)
	switch {
	case used && who == "muster":
		f.Found = o.Listen + " is muster's; one runs already"
	case used:
		f.Level = Fail
		f.Found = o.Listen + " is in use by " + who
		f.Means = "muster up cannot listen there"
		f.Mend = "muster up --listen 127.0.0.1:0, or stop what `ss -ltnp` shows on that port"
	}
	return one(f)
}
