package oci

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Finding says whether a runtime works on this machine, by having run it.
type Finding struct {
	Runtime   fleet.Runtime
	Path      string // of its program; empty where not installed
	Works     bool
	Err       error           // why it does not
	Isolation fleet.Isolation // as observed, where it works
	Took      time.Duration   // creation to ready
}

// picker remembers which runtime "auto" stands for.
type picker struct {
	mu     sync.Mutex
	chosen fleet.Runtime
	lost   []string
}

// choose returns the driver for a runtime; auto is the strongest that really
// works, found by a test run once. lost says why it is not the strongest.
func (s *Sandboxes) choose(ctx context.Context, r fleet.Runtime) (*cli, []string, error) {
	if r != fleet.RuntimeAuto && r != "" {
		c, err := s.cli(r)
		return c, nil, err
	}
	s.picker.mu.Lock()
	defer s.picker.mu.Unlock()
	if s.picker.chosen == "" {
		var why []string
		for _, r := range Strength {
			f := s.Try(ctx, r)
			if f.Works {
				s.picker.chosen, s.picker.lost = r, why
				break
			}
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			why = append(why, fmt.Sprintf("auto did not take %s: %v", r, f.Err))
		}
		if s.picker.chosen == "" {
			return nil, nil, fmt.Errorf("runtime auto: %w: no runtime works here: %s; install runc, or run `muster doctor`",
				fleet.ErrUnavailable, strings.Join(why, "; "))
		}
	}
	c, err := s.cli(s.picker.chosen)
	return c, s.picker.lost, err
}

// tryTime bounds one test run.
const tryTime = 20 * time.Second

// Try makes a sandbox with the runtime, looks at it and removes it.
func (s *Sandboxes) Try(ctx context.Context, r fleet.Runtime) Finding {
	f := Finding{Runtime: r}
	c, err := s.cli(r)
	if err != nil {
		f.Err = err
		return f
	}
	f.Path = c.path
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	spec := fleet.SandboxSpec{
		ID: fleet.NewSandboxID(time.Now()), Pool: "probe", Runtime: r, Image: fleet.ImageHost,
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 256 << 20, Pids: 64, DiskBytes: 16 << 20, Files: 1024},
		Network:   fleet.Network{Mode: fleet.NetworkNone}, Startup: tryTime,
	}
	began := time.Now()
	f.Isolation, f.Err = s.Create(ctx, spec)
	f.Took, f.Works = time.Since(began), f.Err == nil
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	if err := s.Destroy(ctx, spec.ID); err != nil {
		f.Works, f.Err = false, errors.Join(f.Err, err)
	}
	return f
}

// Probe tries every runtime in a directory of its own, strongest first.
func Probe(ctx context.Context, o Options) ([]Finding, error) {
	s, err := New(ctx, o)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, r := range Strength {
		out = append(out, s.Try(ctx, r))
	}
	return out, s.Close()
}
