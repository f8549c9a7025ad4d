package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"strings"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// runtimeNeeds says what each runtime is for and how to get it.
var runtimeNeeds = []struct {
	runtime fleet.Runtime
	means   string
	mend    string
}{
	{fleet.RuntimeGVisor, "no boundary against hostile code: runc and crun share the host's kernel", "make runsc   (builds gVisor's runsc into the data directory's bin/), or put runsc on $PATH"},
	{fleet.RuntimeRunc, "templates that ask for runc cannot start", "apt-get install -y runc"},
	{fleet.RuntimeCrun, "templates that ask for crun cannot start", "apt-get install -y crun"},
}

func checkRuntimes(ctx context.Context, _ Host, o Options) []Finding {
	if o.Probe == nil {
		return one(Finding{Check: "runtimes", Level: Warn, Found: "not examined"})
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found := make([]Finding, len(runtimeNeeds))
	works := make([]bool, len(runtimeNeeds))
	var wg sync.WaitGroup
	for i, need := range runtimeNeeds {
		wg.Go(func() {
			p := o.Probe(ctx, need.runtime)
			works[i] = p.Path != "" && p.Err == nil
			found[i] = judgeRuntime(need.runtime, p)
			if found[i].Level != OK && found[i].Means == "" {
				found[i].Means, found[i].Mend = need.means, need.mend
			}
		})
	}
	wg.Wait()
	any := false
	for _, w := range works {
		any = any || w
	}
	if !any {
		found = append(found, Finding{
			Check: "runtimes", Level: Fail, Found: "none works",
			Means: "no sandbox can start", Mend: "apt-get install -y runc",
		})
	}
	return found
}

func judgeRuntime(r fleet.Runtime, p Probed) Finding {
	f := Finding{Check: "runtime." + string(r), Level: OK}
	switch {
	case p.Path == "":
		f.Level, f.Found = Warn, "not installed"
	case p.Err != nil:
		f.Level = Warn
		f.Found = strings.TrimSpace(p.Path+" "+p.Version) + " does not run a sandbox: " + p.Err.Error()
	default:
		f.Found = strings.TrimSpace(p.Path+" "+p.Version) + " ran a sandbox"
		if len(p.Lost) > 0 {
			f.Level = Warn
			f.Means = strings.Join(p.Lost, "; ")
		}
	}
	return f
}

func checkRunner(_ context.Context, h Host, o Options) []Finding {
	f := Finding{Check: "runner", Level: OK, Found: o.Runner}
	const mend = "go build -o \"$(dirname \"$(command -v muster)\")/muster-runner\" ./cmd/muster-runner   (with CGO_ENABLED=0), or set MUSTER_RUNNER"
	if o.Runner == "" {
		f.Level, f.Found = Fail, "muster-runner is neither beside muster nor on $PATH"
		f.Means, f.Mend = "no sandbox can start: the runner is the process inside it", mend
		return one(f)
	}
	b, err := h.ReadFile(o.Runner)
	if err != nil {
		f.Level, f.Found, f.Mend = Fail, err.Error(), mend
		f.Means = "no sandbox can start: the runner is the process inside it"
		return one(f)
	}
	if dynamic(b) {
		f.Level = Fail
		f.Found += " is dynamically linked"
		f.Means = "it starts only in images that hold the same C library"
		f.Mend = mend
	}
	return one(f)
}

// dynamic reports whether an ELF program needs an interpreter.
func dynamic(program []byte) bool {
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return false // a script, as tests use
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}

func checkPrograms(ctx context.Context, h Host, _ Options) []Finding {
	git := Finding{Check: "git", Level: OK}
	if path, err := h.LookPath("git"); err != nil {
		git.Level, git.Found = Warn, "not installed"
		git.Means = "with the image `host` repositories cannot be cloned and no patch can be made"
		git.Mend = "apt-get install -y git"
	} else {
		out, _ := h.Run(ctx, path, "--version")
		version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		git.Found = strings.TrimSpace(path + " " + strings.TrimPrefix(version, "git version "))
	}
	ca := Finding{Check: "ca-certificates", Level: Warn, Found: "not found"}
	ca.Means = "https from sandboxes of the image `host` will fail to verify"
	ca.Mend = "apt-get install -y ca-certificates"
	for _, p := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"} {
		if b, err := h.ReadFile(p); err == nil {
			n := bytes.Count(b, []byte("BEGIN CERTIFICATE"))
			ca = Finding{Check: "ca-certificates", Level: OK, Found: fmt.Sprintf("%s (%d)", p, n)}
			break
		}
	}
	return []Finding{git, ca}
}
