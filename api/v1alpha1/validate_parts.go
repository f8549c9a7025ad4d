package v1alpha1

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Bounds of resources. A machine larger than these exists nowhere.
const (
	minMilliCPU = 10
	maxMilliCPU = 1024 * 1000
	minMemory   = 16 << 20
	minDisk     = 16 << 20
	minLog      = 4 << 10
	maxLog      = 16 << 30
	maxBytes    = 64 << 40

	day = 24 * time.Hour
)

func (r Resources) validate(ps *problems, field string) {
	ps.cpus(sub(field, "cpus"), r.CPUs)
	ps.size(sub(field, "memory"), r.Memory, minMemory, maxBytes)
	ps.size(sub(field, "disk"), r.Disk, minDisk, maxBytes)
	ps.size(sub(field, "log"), r.Log, minLog, maxLog)
	ps.whole(sub(field, "pids"), r.Pids, 8, 4194304)
	ps.whole(sub(field, "files"), r.Files, 64, 1048576)
}

func (ps *problems) cpus(field string, q Quantity) {
	const right = "cores such as 1, 0.5 or 500m, from 10m to 1024"
	if q == "" {
		return
	}
	n, err := q.Milli()
	switch {
	case err != nil:
		ps.addf(field, right, "%s", err)
	case n < 0:
		ps.addf(field, right, "%s is negative", q)
	case n < minMilliCPU:
		ps.addf(field, right, "%s is too little", q)
	case n > maxMilliCPU:
		ps.addf(field, right, "%s is more than any machine has (did you mean %sm?)", q, q)
	}
}

func (ps *problems) size(field string, q Quantity, lo, hi int64) {
	if q == "" {
		return
	}
	n, err := q.Bytes()
	if err == nil && n >= lo && n <= hi {
		return
	}
	right := fmt.Sprintf("a size such as 512Mi or 2Gi, from %s to %s", BytesQuantity(lo), BytesQuantity(hi))
	switch {
	case err != nil:
		ps.addf(field, right, "%s", err)
	case n < 0:
		ps.addf(field, right, "%s is negative", q)
	case n < lo && strings.HasSuffix(string(q), "m"):
		ps.addf(field, right, "%s is %d bytes: m is thousandths (did you mean %sMi?)", q, n, strings.TrimSuffix(string(q), "m"))
	case n < lo && len(strings.Trim(string(q), "0123456789")) == 0:
		ps.addf(field, right, "%s is in bytes (did you mean %sMi or %sGi?)", q, q, q)
	case n < lo:
		ps.addf(field, right, "%s is too small", q)
	default:
		ps.addf(field, right, "%s is too large", q)
	}
}

// whole checks a number where zero means that it was left out.
func (ps *problems) whole(field string, n, lo, hi int) {
	if n == 0 || n >= lo && n <= hi {
		return
	}
	right := fmt.Sprintf("a whole number from %d to %d", lo, hi)
	switch {
	case n < 0 && lo >= 0:
		ps.addf(field, right, "%d is negative", n)
	case n < lo:
		ps.addf(field, right, "%d is too small", n)
	default:
		ps.addf(field, right, "%d is too large", n)
	}
}

// real checks a number with a fraction; NaN fits nowhere.
func (ps *problems) real(field string, x, lo, hi float64) {
	if x != 0 && (x < lo || x > hi || x != x) {
		ps.addf(field, fmt.Sprintf("a number from %g to %g", lo, hi), "%g is not allowed", x)
	}
}

func (ps *problems) oneOf(field, s string, names ...string) {
	if s != "" && !slices.Contains(names, s) {
		ps.addf(field, list(names), "%q is unknown", clip(s))
	}
}

// validate checks a network; mode is the one in force, "" where it is only
// known later.
func (n Network) validate(ps *problems, field, mode string) {
	ps.oneOf(sub(field, "mode"), n.Mode, "none", "proxy", "open")
	for _, l := range []struct {
		name  string
		rules []string
		right string
	}{
		{"allow", n.Allow, `a host name, "*.example.com" or "host:port"; everything is mode: open`},
		{"allowPrivate", n.AllowPrivate, `a host name, an address or a range such as 10.1.0.0/16`},
	} {
		field := sub(field, l.name)
		if len(l.rules) > 0 && (mode == "none" || mode == "open") {
			ps.addf(field, "mode: proxy, or no list", "has no meaning with mode %s", mode)
		}
		if len(l.rules) > 10_000 {
			ps.addf(field, "at most 10000", "has %d entries", len(l.rules))
			continue
		}
		for i, r := range l.rules {
			if err := allowRule(r); err != nil {
				ps.addf(at(field, i), l.right, "%s", err)
			}
		}
	}
}

func (t Timeouts) validate(ps *problems, field string) {
	ps.duration(sub(field, "queue"), t.Queue, time.Second, 366*day, "no bound")
	ps.duration(sub(field, "startup"), t.Startup, time.Second, 24*time.Hour, "no bound")
	ps.duration(sub(field, "run"), t.Run, time.Second, 366*day, "no bound")
	ps.duration(sub(field, "idle"), t.Idle, time.Second, 366*day, "no bound")
}

// Host paths that a sandbox must never see: each would hand it the machine,
// the control plane or another tenant's work.
var (
	wholeOnly = []string{"/", "/etc", "/var", "/var/lib", "/home", "/root", "/tmp", "/var/tmp"}
	below     = []string{
		"/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/var/lib/muster", "/var/lib/docker",
		"/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/etc/ssh", "/etc/ssl/private", "/etc/shadow",
		"/etc/gshadow", "/etc/kubernetes", "/etc/sudoers", "/etc/sudoers.d",
	}
	secretDirs = []string{".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".netrc"}
	insideOf   = []string{"/proc", "/sys", "/dev", "/run", "/workspace", "/etc"}
)

func (m Mount) validate(ps *problems, field string) {
	source, target := sub(field, "source"), sub(field, "target")
	if absolute(ps, source, m.Source) {
		switch {
		case slices.Contains(wholeOnly, m.Source), isBelow(m.Source, below):
			ps.addf(source, "a directory with only what agents may read", "%s is refused: it would show agents the machine's own secrets or controls", clip(m.Source))
		case strings.HasSuffix(m.Source, ".sock"):
			ps.addf(source, "a file or directory", "%s is refused: a socket hands agents what listens on it", clip(m.Source))
		case slices.ContainsFunc(strings.Split(m.Source, "/"), func(s string) bool { return slices.Contains(secretDirs, s) }):
			ps.addf(source, "a secret (spec.secrets) for what the agent needs of it", "%s is refused: it holds credentials", clip(m.Source))
		}
	}
	if absolute(ps, target, m.Target) {
		switch {
		case m.Target == "/", m.Target == "/usr", m.Target == "/home", m.Target == "/home/agent", m.Target == "/tmp", isBelow(m.Target, insideOf):
			ps.addf(target, "a path such as /opt/tools or /home/agent/.cache/pip", "%s belongs to the sandbox itself", clip(m.Target))
		}
	}
}

func absolute(ps *problems, field, p string) bool {
	const right = `an absolute path without ".."`
	switch {
	case p == "":
		ps.addf(field, right, "is missing")
	case !strings.HasPrefix(p, "/"):
		ps.addf(field, right, "%q is relative", clip(p))
	case path.Clean(p) != p || strings.ContainsAny(p, "\x00\n,:"):
		ps.addf(field, right+`, doubled or final "/", ":" and ","`, "%q is not plain", clip(p))
	default:
		return true
	}
	return false
}

// isBelow tells whether p is one of dirs or lies below one.
func isBelow(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return p == d || strings.HasPrefix(p, d+"/") })
}
