package oci

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"muster.dev/muster/internal/fleet"
)

// Sizes of the small in-memory places; all count against the memory limit.
const (
	runSize = "size=16m"
	shmSize = "size=64m"
)

// mounts lists them in the order the runtime makes them.
func (p *plan) mounts() []specs.Mount {
	m := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: p.ptsOptions()},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", shmSize}},
		{Destination: "/run", Type: "tmpfs", Source: "run", Options: []string{"nosuid", "nodev", "mode=755", runSize}},
		bind(p.paths.run, inside, "nosuid", "nodev"),
		bind(filepath.Join(p.paths.run, "hosts"), "/etc/hosts", "nosuid", "nodev", "noexec"),
	}
	if p.spec.Network.Mode == fleet.NetworkOpen {
		// sysfs can be mounted in one's own network namespace only.
		m = append(m, specs.Mount{Destination: "/sys", Type: "none", Source: "/sys",
			Options: []string{"rbind", "ro", "nosuid", "noexec", "nodev"}})
	} else {
		m = append(m, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"nosuid", "noexec", "nodev", "ro"}})
	}
	for _, t := range p.trees {
		m = append(m, bind(t, t, "nodev"))
	}
	m = append(m, p.writable()...)
	for _, x := range p.spec.Mounts {
		m = append(m, bind(x.Source, x.Target, "nosuid", "nodev"))
	}
	return m
}

// writable are the places the agent may write to.
func (p *plan) writable() []specs.Mount {
	var m []specs.Mount
	for i, f := range folders {
		if p.paths.volume != "" {
			m = append(m, specs.Mount{Destination: f.target, Type: "none",
				Source:  filepath.Join(p.paths.volume, f.name),
				Options: []string{"bind", "rw", "nosuid", "nodev"}})
			continue
		}
		// One tmpfs each, as an unprivileged user can mount nothing outside:
		// half of the size for the workspace, a quarter for the home, …
		size := p.spec.Resources.DiskBytes >> min(i+1, 3)
		opts := []string{"rw", "nosuid", "nodev", fmt.Sprintf("mode=%o", f.mode), fmt.Sprintf("size=%d", size)}
		if p.rootless.apart(p.runtime) && f.mode != 0o1777 {
			opts = append(opts, fmt.Sprintf("uid=%d", agentUID), fmt.Sprintf("gid=%d", agentUID))
		}
		m = append(m, specs.Mount{Destination: f.target, Type: "tmpfs", Source: f.name, Options: opts})
	}
	return m
}

func (p *plan) ptsOptions() []string {
	o := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if p.rootless.apart(p.runtime) {
		o = append(o, "gid=5") // an id that must exist in the namespace
	}
	return o
}

func bind(source, target string, options ...string) specs.Mount {
	return specs.Mount{Destination: target, Type: "none", Source: source,
		Options: append([]string{"rbind", "ro"}, options...)}
}

// checkMounts refuses mounts that would undo the sandbox.
func checkMounts(mounts []fleet.Mount) error {
	for i, m := range mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		if !filepath.IsAbs(m.Source) {
			return &fleet.FieldError{Field: field + ".source", Wrong: fmt.Sprintf("%q is not absolute", m.Source), Right: "an absolute path on the host"}
		}
		t := filepath.Clean(m.Target)
		if !filepath.IsAbs(m.Target) || t == "/" {
			return &fleet.FieldError{Field: field + ".target", Wrong: fmt.Sprintf("%q is not a path inside", m.Target), Right: "an absolute path such as /opt/tools"}
		}
		for _, taken := range []string{"/proc", "/sys", "/dev", "/run/muster"} {
			if t == taken || strings.HasPrefix(t, taken+"/") {
				return &fleet.FieldError{Field: field + ".target", Wrong: t + " belongs to the sandbox", Right: "a path outside " + taken}
			}
		}
	}
	return nil
}
