package oci

import (
	"os"
	"path/filepath"

	"muster.dev/muster/internal/fleet"
)

// InitPid returns the host pid of a sandbox's first process.
func (s *Sandboxes) InitPid(id fleet.SandboxID) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[id]
	if b == nil || b.rec.Init.Pid == 0 {
		return 0, false
	}
	return b.rec.Init.Pid, true
}

// Baseline writes a bundle of the same profile as a sandbox for running it by
// the runtime's own command line: the same root, limits, namespaces and
// filter, with a plain directory for a volume.
func (s *Sandboxes) Baseline(dir string, spec fleet.SandboxSpec, args ...string) error {
	b := newBox(spec.ID, dir, func() {})
	b.rec = record{Spec: spec, Runtime: fleet.RuntimeRunc, Base: rangeBase, Cgroup: filepath.Join(s.parent, string(spec.ID))}
	p, err := s.plan(b, Image{})
	if err != nil {
		return err
	}
	p.paths.volume, p.paths.run = filepath.Join(dir, "volume"), filepath.Join(dir, "run")
	for _, d := range []string{dir, p.paths.run} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(p.paths.run, "hosts"), nil, 0o644); err != nil {
		return err
	}
	if err := furnish(p.paths.volume); err != nil {
		return err
	}
	if err := handOver(p.paths.volume, rangeBase+agentUID); err != nil {
		return err
	}
	c, err := p.config()
	if err != nil {
		return err
	}
	c.Process.Args = args
	return writeConfig(dir, c)
}

// UseMemoryVolumes makes volumes as where there are no loop devices.
func (s *Sandboxes) UseMemoryVolumes() {
	s.volumes.kind, s.volumes.why = volumeTmpfs, "a test says so"
}
