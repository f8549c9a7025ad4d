package oci

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/proc"
)

func TestRangesNeverOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRanges(rapid.String().Draw(t, "seed"))
		held := map[int]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				base, err := r.take()
				if err != nil {
					t.Fatal(err)
				}
				if held[base] || base == sharedBase || (base-rangeBase)%rangeSize != 0 || base < rangeBase || base+rangeSize > 1<<31 {
					t.Fatalf("took %d, held %v", base, held)
				}
				held[base] = true
			},
			"give": func(t *rapid.T) {
				for base := range held {
					r.give(base)
					delete(held, base)
					return
				}
			},
			"hold": func(t *rapid.T) {
				base := rangeBase + rapid.IntRange(1, rangeCount-1).Draw(t, "n")*rangeSize
				r.hold(base)
				held[base] = true
			},
		})
	})
}

func TestCopySparseKeepsContentAndHoles(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
		size := rapid.Int64Range(0, 8<<20).Draw(t, "size")
		f, err := os.Create(src)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 5).Draw(t, "pieces") {
			piece := rapid.SliceOfN(rapid.Byte(), 1, 5000).Draw(t, "piece")
			at := rapid.Int64Range(0, max(0, size-int64(len(piece)))).Draw(t, "at")
			if at+int64(len(piece)) <= size {
				_, _ = f.WriteAt(piece, at)
			}
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := copySparse(dst, src); err != nil {
			t.Fatal(err)
		}
		a, _ := os.ReadFile(src)
		b, _ := os.ReadFile(dst)
		if !bytes.Equal(a, b) {
			t.Fatal("the copy differs")
		}
		var sa, sb unix.Stat_t
		_ = unix.Stat(src, &sa)
		_ = unix.Stat(dst, &sb)
		if sb.Blocks > sa.Blocks+16 {
			t.Fatalf("%d blocks became %d", sa.Blocks, sb.Blocks)
		}
	})
}

func TestProcessIdentityAndWatch(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := identify(cmd.Process.Pid)
	if err != nil || !p.alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, other := range []process{{Pid: p.Pid, Start: p.Start + 1, Boot: p.Boot}, {Pid: p.Pid, Start: p.Start, Boot: "another"}, {}} {
		if other.alive() {
			t.Errorf("%+v is taken for %+v", other, p)
		}
		if _, err := watchProcess(other); err == nil {
			t.Errorf("%+v is watched", other)
		}
	}
	w, err := watchProcess(p)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool, 2)
	go func() { ended <- w.wait() }()
	select {
	case <-ended:
		t.Fatal("ended before it was killed")
	case <-time.After(20 * time.Millisecond):
	}
	go func() { _ = cmd.Wait() }()
	if err := killProcess(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if !<-ended || p.alive() {
		t.Error("the end was not seen")
	}
	if err := killProcess(t.Context(), p); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
	w.close()
}

func TestClosedWatchReturnsFalse(t *testing.T) {
	p, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	w, err := watchProcess(p)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool, 1)
	go func() { ended <- w.wait() }()
	time.Sleep(10 * time.Millisecond)
	w.close()
	if <-ended {
		t.Error("closing was taken for the end")
	}
}

func TestPrivateMountsAreSeenByNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for range 20 {
		err := privately(func() error {
			if err := unix.Mount("x", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "inside"), nil, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Fatalf("seen outside: %v, %v", entries, err)
		}
	}
}

func TestVerdict(t *testing.T) {
	at := time.Unix(1000, 0)
	var m meter
	m.add(fleet.Usage{At: at, OOMKills: 1, MemoryBytes: 100}, at.Add(-time.Second))
	m.claimed() // a kill during prepare is not the task's
	u := fleet.Usage{At: at.Add(2 * time.Second), OOMKills: 1, MemoryBytes: 300}
	if reason, _ := m.verdict(u); reason != fleet.ReasonNone {
		t.Errorf("reason %q for what was before the claim", reason)
	}
	if got := m.add(u, at).MemoryByteSeconds; got != 100+400 {
		t.Errorf("%d byte-seconds, want 100 from before and 400 since", got)
	}
	for want, u := range map[fleet.TaskReason]fleet.Usage{
		fleet.ReasonOOM:  {OOMKills: 2, DiskFull: true, PidsDenied: 1},
		fleet.ReasonDisk: {OOMKills: 1, DiskFull: true, PidsDenied: 1},
		fleet.ReasonPids: {OOMKills: 1, PidsDenied: 1},
	} {
		if reason, err := m.verdict(u); reason != want || err == nil {
			t.Errorf("verdict %q (%v) on %+v, want %q", reason, err, u, want)
		}
	}
	full := m.add(fleet.Usage{At: at.Add(3 * time.Second), DiskFull: true}, at)
	after := m.add(fleet.Usage{At: at.Add(4 * time.Second)}, at)
	if !full.DiskFull || !after.DiskFull {
		t.Error("a disk that was full once is forgotten")
	}
}

func FuzzReadStatus(f *testing.F) {
	f.Add("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n")
	f.Add("Uid:\nCapBnd: zz\n")
	f.Add("1 2 3:4 / / ro,x - y")
	f.Fuzz(func(_ *testing.T, text string) {
		var iso fleet.Isolation
		proc.ReadStatus(&iso, text)
		proc.ReadOnlyAt(text, "/")
	})
}

func FuzzSubordinate(f *testing.F) {
	f.Add("root:100000:65536\n65534:200000:65536\n")
	f.Add("::\n65534:x\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "subuid")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		subordinate(path, 65534)
	})
}

func TestRuntimeErrorsAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := `{"level":"warning","msg":"never mind","time":"x"}
not json
{"level":"error","msg":"no such thing","time":"x"}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastErrors(path); got != ": no such thing" {
		t.Errorf("%q", got)
	}
	if got := lastErrors(path + "absent"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestUnknownRuntimesAndPrograms(t *testing.T) {
	if _, err := lookRuntime("docker", nil, ""); err == nil {
		t.Error("docker is no runtime of ours")
	}
	if _, err := lookRuntime(fleet.RuntimeRunc, map[fleet.Runtime]string{fleet.RuntimeRunc: "/nonexistent"}, ""); err == nil {
		t.Error("a path that is not there was taken")
	}
}

// TestRate: the rate of cpu is that of the time since the reading before, if
// that is long enough ago.
func TestRate(t *testing.T) {
	var m meter
	began := time.Unix(1000, 0)
	for _, r := range []struct {
		at, cpu time.Duration
		want    int64
	}{
		{0, 0, 0},
		{100 * time.Millisecond, 100 * time.Millisecond, 0}, // too soon to tell
		{500 * time.Millisecond, 250 * time.Millisecond, 500},
		{510 * time.Millisecond, 260 * time.Millisecond, 500},
		{1500 * time.Millisecond, 2250 * time.Millisecond, 2000},
		{2500 * time.Millisecond, 2250 * time.Millisecond, 0},
	} {
		if got := m.add(fleet.Usage{At: began.Add(r.at), CPU: r.cpu}, began).MilliCPUNow; got != r.want {
			t.Errorf("after %s: %d thousandths, want %d", r.at, got, r.want)
		}
	}
}
