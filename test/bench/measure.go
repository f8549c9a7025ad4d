package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clock is the command whose first instruction is timed: it prints the clock.
// Its own start (about a millisecond) is part of every figure below.
var clock = []string{"/bin/date", "+%s.%N"}

func parseClock(s string) (time.Time, error) {
	sec, ns, ok := strings.Cut(strings.TrimSpace(s), ".")
	a, err1 := strconv.ParseInt(sec, 10, 64)
	b, err2 := strconv.ParseInt(ns, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return time.Time{}, fmt.Errorf("%q is not a clock", s)
	}
	return time.Unix(a, b), nil
}

func quantile(d []time.Duration, q float64) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func row(name string, d []time.Duration, target string) {
	ms := func(q float64) float64 { return float64(quantile(d, q).Microseconds()) / 1000 }
	fmt.Printf("  %-34s n=%-4d p50 %8.1f ms  p95 %8.1f ms  p99 %8.1f ms  max %8.1f ms  %s\n", name, len(d), ms(0.5), ms(0.95), ms(0.99), ms(1), target)
}

func warm(ctx context.Context, b *bench) error {
	s, err := b.start(ctx, "warm", 8, 16)
	if err != nil {
		return err
	}
	defer s.stop(b)
	var d []time.Duration
	for range b.n {
		if err := s.ready(ctx, 4); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the refill before is not what is measured
		ids, t0, err := s.submit(ctx, 1, clock...)
		if err != nil {
			return err
		}
		at, err := s.firstInstruction(ctx, ids[0])
		if err != nil {
			return err
		}
		d = append(d, at.Sub(t0))
	}
	row("muster, warm pool", d, "target p50 <= 5 ms, p99 <= 20 ms")
	return peers(ctx, b, s)
}

// peers times what the same machine needs without muster, in the same run.
func peers(ctx context.Context, b *bench, s *server) error {
	var host, bwrap []time.Duration
	time1 := func(args ...string) (time.Duration, error) {
		t0 := time.Now()
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", args[0], err)
		}
		at, err := parseClock(string(out))
		return at.Sub(t0), err
	}
	for range 30 {
		t, err := time1(clock...)
		if err != nil {
			return err
		}
		host = append(host, t)
	}
	row("the same command on the host", host, "")
	if _, err := exec.LookPath("bwrap"); err == nil {
		for range 30 {
			t, err := time1(append([]string{"bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-all", "--die-with-parent"}, clock...)...)
			if err != nil {
				return err
			}
			bwrap = append(bwrap, t)
		}
		row("bwrap --unshare-all", bwrap, "")
	}
	p, err := newProfile(b, s)
	if err != nil {
		fmt.Printf("  runc run of the same profile: not measured: %v\n", err)
		return nil
	}
	var rc []time.Duration
	for i := range 30 {
		at, t0, err := p.run(ctx, i)
		if err != nil {
			return err
		}
		rc = append(rc, at.Sub(t0))
	}
	row("runc run, same profile", rc, "")
	if exec.CommandContext(ctx, "docker", "info").Run() != nil {
		fmt.Println("  docker run: not measured: no docker engine answers here")
	}
	return nil
}

func burst(ctx context.Context, b *bench) error {
	s, err := b.start(ctx, "burst", 50, 110)
	if err != nil {
		return err
	}
	defer s.stop(b)
	var first, last []time.Duration
	for range 3 {
		if err := s.ready(ctx, 50); err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		d, err := s.volley(ctx, 50)
		if err != nil {
			return err
		}
		first, last = append(first, quantile(d, 0)), append(last, quantile(d, 1))
	}
	row("first of 50 running", first, "")
	row("all of 50 running", last, "target <= 250 ms")
	return nil
}

// volley submits n tasks at once and returns the time to each's first
// instruction.
func (s *server) volley(ctx context.Context, n int) ([]time.Duration, error) {
	ids, t0, err := s.submit(ctx, n, "/bin/sh", "-c", "date +%s.%N; sleep 3")
	if err != nil {
		return nil, err
	}
	var d []time.Duration
	for _, id := range ids {
		at, err := s.firstInstruction(ctx, id)
		if err != nil {
			return nil, err
		}
		d = append(d, at.Sub(t0))
	}
	return d, nil
}

func fill(ctx context.Context, b *bench) error {
	var ours, theirs []time.Duration
	for i := range 3 {
		s, err := b.start(ctx, fmt.Sprintf("fill%d", i), 0, 60)
		if err != nil {
			return err
		}
		err = func() error {
			defer s.stop(b)
			time.Sleep(time.Second)
			d, err := s.volley(ctx, 50)
			if err != nil {
				return err
			}
			ours = append(ours, quantile(d, 1))
			p, err := newProfile(b, s)
			if err != nil {
				return err
			}
			t, err := p.parallel(ctx, 50)
			theirs = append(theirs, t)
			return err
		}()
		if err != nil {
			return err
		}
	}
	row("muster: 50 running, empty pool", ours, "")
	row("50 parallel runc run", theirs, "")
	fmt.Printf("  ratio of the medians: %.2f (target <= 1.3)\n", float64(quantile(ours, 0.5))/float64(quantile(theirs, 0.5)))
	return nil
}

func idle(ctx context.Context, b *bench) error {
	s, err := b.start(ctx, "idle", 4, 8)
	if err != nil {
		return err
	}
	defer s.stop(b)
	if err := s.ready(ctx, 4); err != nil {
		return err
	}
	time.Sleep(10 * time.Second) // let start-up memory be returned
	pid := strconv.Itoa(s.cmd.Process.Pid)
	c0, err := cpuTicks(pid)
	if err != nil {
		return err
	}
	time.Sleep(20 * time.Second)
	c1, err := cpuTicks(pid)
	if err != nil {
		return err
	}
	fmt.Printf("  control plane: %.1f MiB resident (target <= 40), %.2f %% of a core over 20 s (target < 1)\n",
		rss(pid), float64(c1-c0)/100/20*100)
	var v struct {
		Sandboxes []struct {
			ID    string `json:"id"`
			State string `json:"state"`
		} `json:"sandboxes"`
	}
	if err := s.call(ctx, "GET", "/v1/sandboxes", nil, &v); err != nil {
		return err
	}
	for _, x := range v.Sandboxes {
		if n, ok := groupMemory(x.ID); ok {
			fmt.Printf("  warm sandbox %s: %.2f MiB in its memory cgroup (target <= 3)\n", x.ID, float64(n)/(1<<20))
		}
	}
	return nil
}

func rss(pid string) float64 {
	b, _ := os.ReadFile("/proc/" + pid + "/status")
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) >= 2 && f[0] == "VmRSS:" {
			k, _ := strconv.ParseFloat(f[1], 64)
			return k / 1024
		}
	}
	return 0
}

// cpuTicks is user and system time in hundredths of a second.
func cpuTicks(pid string) (int64, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	u, err1 := strconv.ParseInt(f[11], 10, 64)
	k, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("/proc/%s/stat cannot be read", pid)
	}
	return u + k, nil
}

// groupMemory finds the memory cgroup of a sandbox, version 1 or 2.
func groupMemory(id string) (int64, bool) {
	var n int64
	found := false
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		_ = filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err != nil || !e.IsDir() || filepath.Base(p) != id {
				return nil
			}
			for _, f := range []string{"memory.current", "memory.usage_in_bytes"} {
				if b, err := os.ReadFile(filepath.Join(p, f)); err == nil {
					if v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && !found {
						n, found = v, true
					}
				}
			}
			return filepath.SkipDir
		})
	}
	return n, found
}

// parallel starts n at once and returns the time until the last one's first
// instruction.
func (p *profile) parallel(ctx context.Context, n int) (time.Duration, error) {
	var wg sync.WaitGroup
	at := make([]time.Time, n)
	errs := make([]error, n)
	t0 := time.Now()
	for i := range n {
		wg.Go(func() { at[i], _, errs[i] = p.run(ctx, 1000+i) })
	}
	wg.Wait()
	var last time.Duration
	for i := range n {
		if errs[i] != nil {
			return 0, errs[i]
		}
		last = max(last, at[i].Sub(t0))
	}
	return last, nil
}
