package doctor

import (
	"context"
	"slices"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Level is how bad a finding is.
type Level string

// The levels. Warn: Muster works, with less than it could give. Fail: sandboxes
// will not start, or accepted work is at risk.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one thing looked at.
type Finding struct {
	Check string `json:"check"`           // stable name: kernel, cgroups, runtime.runc, …
	Level Level  `json:"level"`           // ok, warn, fail
	Found string `json:"found"`           // what was seen, with the numbers
	Means string `json:"means,omitempty"` // what follows from it for the user
	Mend  string `json:"mend,omitempty"`  // the command or setting that mends it
	// Lost lists protections that a working runtime had to do without.
	Lost []string `json:"lost,omitempty"`
}

// Report is everything found.
type Report struct {
	Level    Level     `json:"level"` // the worst finding
	Rootless bool      `json:"rootless"`
	Lost     []string  `json:"lost,omitempty"` // protections this machine or user cannot give, in words
	Findings []Finding `json:"findings"`
}

// Probed is what trying one runtime showed.
type Probed struct {
	Runtime fleet.Runtime
	Path    string // empty: not installed
	Err     error  // installed, but a sandbox did not run
	Took    time.Duration
	Lost    []string // protections a working sandbox had to do without
}

// Probe runs a throw-away sandbox with each runtime and says how it went. It
// leaves nothing behind.
type Probe func(ctx context.Context) ([]Probed, error)

// Options says what to look at.
type Options struct {
	DataDir string // may not exist yet
	Listen  string // host:port that `muster up` would listen on
	Runner  string // path of muster-runner; empty: not found
	Probe   Probe  // nil: runtimes are only looked for
}

// Examine runs every check and returns their findings in a fixed order. ctx
// bounds the slow ones (probes, fsync); what it cut short is reported as such.
func Examine(ctx context.Context, h Host, o Options) Report {
	checks := []func(context.Context, Host, Options) []Finding{
		checkKernel, checkCgroups, checkUserNamespaces, checkSeccomp, checkOverlay, checkLoop,
		checkRuntimes, checkRunner, checkPrograms,
		checkDataDir, checkMemory, checkLimits, checkClock, checkPort,
	}
	found := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { found[i] = check(ctx, h, o) })
	}
	wg.Wait()
	r := Report{Level: OK, Rootless: h.UID() != 0, Findings: []Finding{}}
	for _, f := range found {
		r.Findings = append(r.Findings, f...)
	}
	r.Level = Worst(r.Findings)
	r.Lost = lost(h, r.Findings)
	return r
}

// Worst is the level of the worst finding; of none, OK.
func Worst(findings []Finding) Level {
	level := OK
	for _, f := range findings {
		level = worse(level, f.Level)
	}
	return level
}

func worse(a, b Level) Level {
	rank := map[Level]int{OK: 0, Warn: 1, Fail: 2}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// lost says in words what a user goes without on this machine.
func lost(h Host, findings []Finding) []string {
	var out []string
	level := map[string]Level{}
	for _, f := range findings {
		level[f.Check] = f.Level
	}
	if h.UID() != 0 {
		out = append(out,
			"all sandboxes share your own user id on the host: a sandbox that breaks out has your files, and is not kept from the other sandboxes",
			"a single-id user namespace: the runner and the agent have the same user id inside, so only its non-dumpable state and a one-time token keep the agent from the runner")
		if level["cgroups"] != OK {
			out = append(out, "no limits on memory, cpu and processes, and no per-sandbox utilization: cgroups are not delegated to you")
		}
		out = append(out, "the disk limit is kept in memory (tmpfs) in place of a loop device")
	} else if level["loop"] != OK {
		out = append(out, "the disk limit is kept in memory (tmpfs) in place of a loop device")
	}
	for _, f := range findings {
		for _, l := range f.Lost {
			if !slices.Contains(out, l) {
				out = append(out, l)
			}
		}
	}
	if level["runtime.gvisor"] != OK {
		out = append(out, "no gVisor: runc and crun share the host's kernel and are not a boundary against hostile code")
	}
	return out
}

// How long the slow looks may take: fsync on a slow disk, and sandboxes of
// every runtime one after the other.
const (
	syncWithin  = 20 * time.Second
	probeWithin = 70 * time.Second
)
