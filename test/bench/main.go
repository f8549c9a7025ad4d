package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	only := flag.String("only", "", "run one measurement: warm, fill, burst, reaction or idle")
	n := flag.Int("n", 200, "samples of the warm start")
	rounds := flag.Int("rounds", 5, "rounds of the reaction")
	queue := flag.String("queue", "", "queues of the reaction, by name, separated by commas; default all")
	rt := flag.String("runtime", "runc", "runtime of the sandboxes: runc, crun or gvisor")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only, bench{n: *n, rounds: max(1, *rounds), queue: *queue, runtime: *rt}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measurement is one table of the report.
type measurement struct {
	name  string
	title string
	f     func(ctx context.Context, b *bench) error
}

type bench struct {
	dir     string // scratch
	muster  string
	runner  string
	runtime string
	n       int
	rounds  int
	queue   string // names
}

func run(ctx context.Context, only string, set bench) error {
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &set
	b.dir, b.muster, b.runner = dir, filepath.Join(dir, "muster"), filepath.Join(dir, "muster-runner")
	for _, p := range []string{"muster", "muster-runner"} {
		c := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, p), "muster.dev/muster/cmd/"+p)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("build %s: %w", p, err)
		}
	}
	fmt.Printf("machine: %d cores, %s, Linux %s; runtime %s\n", runtime.NumCPU(), cpuModel(), kernel(), b.runtime)
	found := false
	for _, m := range []measurement{
		{"warm", "submit over HTTP to the first instruction, warm sandbox", warm},
		{"burst", "50 tasks at once on a warm pool of 50", burst},
		{"fill", "50 tasks at once from an empty pool, beside 50 parallel `runc run` of the same profile", fill},
		{"reaction", "messages pushed to an outside queue to the first and the last sandbox that has taken one", reaction},
		{"idle", "idle cost of the control plane and of a warm sandbox", idle},
	} {
		if only != "" && only != m.name {
			continue
		}
		found = true
		fmt.Printf("\n%s: %s\n", m.name, m.title)
		if err := m.f(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if !found {
		return fmt.Errorf("-only %q is unknown; want warm, burst, fill, reaction or idle", only)
	}
	return nil
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(b))
}

// fleetFile writes a fleet with a warm pool of the given size.
func (b *bench) fleetFile(warm, most int) (string, error) {
	path := filepath.Join(b.dir, fmt.Sprintf("fleet-%d.yaml", warm))
	return path, b.writeFleet(path, "type: embedded", warm, most)
}

// writeFleet writes one that works the queue off.
func (b *bench) writeFleet(path, queue string, warm, most int) error {
	text := fmt.Sprintf(`apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: bench}
spec:
  queue: {%s}
  templates:
    - name: default
      runtime: %s
      image: host
      resources: {cpus: 1, memory: 256Mi, pids: 64, disk: 64Mi}
      network: {mode: none}
  capacity:
    sandboxes: {min: %d, max: %d}
  nodes: {provider: host, slots: %d, overcommitCPU: 100, overcommitMemory: 100}
`, queue, b.runtime, warm, most, most)
	return os.WriteFile(path, []byte(text), 0o600)
}

func decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %.200s: %w", b, err)
	}
	return nil
}
