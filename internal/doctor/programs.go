package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// runtimeNeeds says what each runtime is for and how to get it.
var runtimeNeeds = []struct {
	runtime fleet.Runtime
	program string
	means   string
	mend    string
}{
	{fleet.RuntimeGVisor, "runsc", "no boundary against hostile code: runc and crun share the host's kernel", "make gvisor   (builds it from gVisor's Go module), or put runsc on $PATH"},
	{fleet.RuntimeRunc, "runc", "templates that ask for runc cannot start", "apt-get install -y runc"},
	{fleet.RuntimeCrun, "crun", "templates that ask for crun cannot start", "apt-get install -y crun"},
}

func checkRuntimes(ctx context.Context, h Host, o Options) []Finding {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	probed, err := []Probed{}, errors.New("no sandbox was tried: muster-runner is missing")
	if o.Probe != nil {
		probed, err = o.Probe(ctx)
	}
	tried := map[fleet.Runtime]Probed{}
	for _, p := range probed {
		tried[p.Runtime] = p
	}
	var found []Finding
	works := false
	for _, need := range runtimeNeeds {
		p, ok := tried[need.runtime]
		if !ok {
			p = Probed{Err: err}
			p.Path, _ = h.LookPath(need.program)
		}
		works = works || p.Path != "" && p.Err == nil
		f := judgeRuntime(ctx, h, need.runtime, p)
		if f.Level != OK && f.Means == "" {
			f.Means, f.Mend = need.means, need.mend
		}
		found = append(found, f)
	}
	if !works {
		f := Finding{Check: "runtimes", Level: Fail, Found: "none works", Means: "no sandbox can start", Mend: "apt-get install -y runc"}
		if err != nil {
			f.Found += ": " + err.Error()
		}
		found = append(found, f)
	}
	return found
}

func judgeRuntime(ctx context.Context, h Host, r fleet.Runtime, p Probed) Finding {
	f := Finding{Check: "runtime." + string(r), Level: OK}
	if p.Path == "" {
		f.Level, f.Found = Warn, "not installed"
		return f
	}
	out, _ := h.Run(ctx, p.Path, "--version")
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	f.Found = p.Path
	if version != "" {
		f.Found += " (" + version + ")"
	}
	switch {
	case p.Err != nil:
		f.Level = Warn
		f.Found += " does not run a sandbox: " + p.Err.Error()
	default:
		f.Found += fmt.Sprintf(" ran a sandbox, ready in %s", p.Took.Round(time.Millisecond))
		f.Lost = p.Lost
	}
	return f
}

func checkRunner(_ context.Context, h Host, o Options) []Finding {
	f := Finding{Check: "runner", Level: OK, Found: o.Runner}
	const mend = "make build   (puts it beside muster), or name it with --runner"
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
