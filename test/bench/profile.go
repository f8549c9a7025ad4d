package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// profile is the OCI configuration of one of muster's own sandboxes with the
// command to be timed in place of the runner: the same namespaces, id
// mappings, seccomp filter and limits. Its writable places are plain
// directories, so runc has less to do than muster (no volume of bounded size).
type profile struct {
	dir  string
	spec specs.Spec
}

func newProfile(b *bench, s *server) (*profile, error) {
	if b.runtime != "runc" {
		return nil, fmt.Errorf("only measured for runc, not %s", b.runtime)
	}
	if _, _, err := s.submit(context.Background(), 1, "/bin/sleep", "2"); err != nil {
		return nil, err
	}
	p := &profile{}
	for range 300 {
		if raw, err := findConfig(filepath.Join(s.data, "sandboxes")); err == nil {
			if err := json.Unmarshal(raw, &p.spec); err != nil {
				return nil, fmt.Errorf("read the configuration of a sandbox: %w", err)
			}
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if p.spec.Root == nil {
		return nil, errors.New("no sandbox left a configuration to copy")
	}
	dir, err := os.MkdirTemp(b.dir, "profile-")
	if err != nil {
		return nil, err
	}
	p.dir = dir
	return p, p.build()
}

func findConfig(dir string) ([]byte, error) {
	var found string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "config.json" {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if found == "" {
		return nil, fs.ErrNotExist
	}
	return os.ReadFile(found)
}

// build makes a root file system like that of image "host".
func (p *profile) build() error {
	root := filepath.Join(p.dir, "root")
	for _, d := range []string{"usr", "proc", "sys", "dev", "etc", "tmp", "run", "workspace", "home/agent", "var/tmp", "run/muster"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+l, filepath.Join(root, l)); err != nil {
			return err
		}
	}
	for _, d := range []string{b0(p.dir), p.dir, root} {
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	var keep []specs.Mount
	for _, m := range p.spec.Mounts {
		if m.Type == "bind" || strings.HasPrefix(m.Destination, "/run/muster") || len(m.Options) > 0 && contains(m.Options, "bind", "rbind") {
			continue
		}
		keep = append(keep, m)
	}
	keep = append(keep, specs.Mount{Destination: "/usr", Type: "bind", Source: "/usr", Options: []string{"rbind", "ro", "nosuid", "nodev"}})
	p.spec.Mounts = keep
	p.spec.Root = &specs.Root{Path: root, Readonly: true}
	p.spec.Process.Args = clock
	p.spec.Process.Cwd = "/"
	return nil
}

func b0(dir string) string { return filepath.Dir(dir) }

func contains(have []string, any ...string) bool {
	for _, h := range have {
		for _, a := range any {
			if h == a {
				return true
			}
		}
	}
	return false
}

// fill runs the profile n times, at most so many being started at once, and
// returns the times to the first instructions, shortest first. All go on until
// the last has begun.
func (p *profile) fill(ctx context.Context, n, atOnce int) ([]time.Duration, error) {
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	waits, errs := make([]time.Duration, n), make([]error, n)
	t0 := time.Now()
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			release := sync.OnceFunc(func() { <-slots })
			defer release()
			var at time.Time
			at, _, errs[i] = p.runUntil(ctx, 2000+i, release)
			waits[i] = at.Sub(t0)
		})
	}
	wg.Wait()
	slices.Sort(waits)
	return waits, errors.Join(errs...)
}

// run runs the profile once and returns the clock the command printed and the
// time just before runc was started.
func (p *profile) run(ctx context.Context, i int) (at, t0 time.Time, err error) {
	return p.runUntil(ctx, i, func() {})
}

// runUntil does, and calls begun as soon as the clock is printed.
func (p *profile) runUntil(ctx context.Context, i int, begun func()) (at, t0 time.Time, err error) {
	id := fmt.Sprintf("muster-bench-%d-%06d", os.Getpid(), i)
	bundle := filepath.Join(p.dir, id)
	if err := os.Mkdir(bundle, 0o755); err != nil {
		return at, t0, err
	}
	defer os.RemoveAll(bundle)
	spec := p.spec
	linux := *p.spec.Linux
	linux.CgroupsPath = "/muster-bench/" + id
	spec.Linux = &linux
	raw, err := json.Marshal(spec)
	if err != nil {
		return at, t0, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), raw, 0o600); err != nil {
		return at, t0, err
	}
	cmd := exec.CommandContext(ctx, "runc", "run", "--bundle", bundle, id)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return at, t0, err
	}
	t0 = time.Now()
	if err := cmd.Start(); err != nil {
		return at, t0, err
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	begun()
	if err := cmd.Wait(); err != nil {
		return at, t0, fmt.Errorf("runc run: %w: %s", err, stderr.Bytes())
	}
	if readErr != nil {
		return at, t0, readErr
	}
	at, err = parseClock(line)
	return at, t0, err
}
