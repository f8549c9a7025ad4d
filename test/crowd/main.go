package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	nodesfake "muster.dev/muster/internal/nodes/fake"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/store/memory"
	"muster.dev/muster/internal/web"
)

const slots = 8 // of a node

func main() {
	n := flag.Int("sandboxes", 10_000, "how many")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	token := flag.String("token", "crowd", "the API's token")
	days := flag.Int("days", 0, "of a past that the ledger remembers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, how{*n, *days, *listen, *token}); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

// how is what was asked for.
type how struct {
	sandboxes, days int
	listen, token   string
}

// run serves until ctx ends.
func run(ctx context.Context, o how) error {
	n := o.sandboxes
	dir, err := os.MkdirTemp("", "muster-crowd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := archive.Open(dir, archive.Options{})
	if err != nil {
		return err
	}
	defer files.Close()
	store := memory.New(memory.Options{MaxBacklog: n})
	defer store.Close()
	boxes := fake.New(fake.Options{Script: work, Usage: usage, Exec: echo})
	defer boxes.Close()
	nodes := nodesfake.New(nodesfake.Options{Start: (n + slots - 1) / slots})
	engine, err := loop(store, files, boxes, nodes, n)
	if err != nil {
		return err
	}
	money, err := books(ctx, store, o.days, nodes.List)
	if err != nil {
		return err
	}
	charged := make(chan error, 1)
	go func() { charged <- money.Run(ctx) }()
	looped := make(chan error, 1)
	go func() { looped <- engine.Run(ctx) }()
	pages, err := web.New()
	if err != nil {
		return err
	}
	spec, err := v1alpha1.ParseFleet(fmt.Appendf(nil, "apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: crowd}\nspec:\n  templates: [{name: default}]\n  capacity: {sandboxes: {max: %d}}\n", n))
	if err != nil {
		return err
	}
	s, err := server.New(server.Config{
		Store: store, Archive: files, Engine: engine, Ledger: money, Fleet: func() *v1alpha1.Fleet { return spec },
		Token: o.token, Version: "crowd", Registry: prometheus.NewRegistry(), Pages: pages,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	if err := fill(ctx, store, n); err != nil {
		return err
	}
	fmt.Printf("http://%s/#signin=%s\n", l.Addr(), s.SignInCode())
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(s.Shutdown(end), <-served, <-looped, <-charged)
}

func loop(store *memory.Store, files *archive.Archive, boxes *fake.Sandboxes, machines *nodesfake.Nodes, n int) (*control.Engine, error) {
	nodes := (n + slots - 1) / slots
	t := fleet.Template{
		Name: "default", Runtime: fleet.RuntimeFake, Image: "host", Revision: "r1",
		Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 2 << 30, Pids: 512, DiskBytes: 10 << 30, Files: 1024, LogBytes: 1 << 20},
		Timeouts:  fleet.Timeouts{Startup: time.Minute, Run: 24 * time.Hour, Queue: 24 * time.Hour},
	}
	return control.New(control.Config{
		Store: store, Queue: store.Queue(), Archive: files, Sandboxes: boxes, Nodes: machines,
		Spec: control.Spec{Name: "crowd", Templates: []fleet.Template{t}, Policy: plan.Policy{
			Min: n, Max: n,
			Nodes: plan.NodePolicy{Scalable: true, Min: nodes, Max: nodes, Slots: slots, Size: plan.Size{MilliCPU: 8000, MemoryBytes: 32 << 30, DiskBytes: 200 << 30}},
		}},
	})
}

// work is a task that goes on until it is stopped; one with the command
// "say TEXT FILE…" prints the text, leaves it as its patch and leaves the files.
func work(ctx context.Context, r *fake.Run) fleet.RunReport {
	r.Running()
	if c := r.Assignment.Command; len(c) > 1 && c[0] == "say" {
		r.Print(fleet.StreamStdout, c[1])
		r.Collecting()
		r.Patch([]byte(c[1]))
		for _, name := range c[2:] {
			r.Artifact(name, []byte(c[1]))
		}
		return fleet.RunReport{}
	}
	r.Print(fleet.StreamStdout, "reading the \x1b[32mrepository\x1b[0m\n")
	<-ctx.Done()
	return fleet.RunReport{}
}

// usage moves, and differs from sandbox to sandbox.
func usage(spec fleet.SandboxSpec, age time.Duration) fleet.Usage {
	h := fnv.New32a()
	_, _ = h.Write([]byte(spec.ID))
	phase := float64(h.Sum32()%6283) / 1000
	wave := (1 + math.Sin(age.Seconds()/7+phase)) / 2
	return fleet.Usage{
		At: time.Now(), CPU: age / 3, MilliCPUNow: int64(950 * wave), MemoryBytes: int64((0.1 + 0.7*wave) * (2 << 30)), MemoryPeakBytes: 1800 << 20,
		Pids: 5 + int64(40*wave), PidsPeak: 60, IOReadBytes: int64(age.Seconds() * 40_000), IOWriteBytes: int64(age.Seconds() * 9000 * (1 + phase)),
	}
}

// echo is a command that prints what it is given until that ends.
func echo(ctx context.Context, _ fleet.SandboxSpec, r fleet.ExecRequest) (int, error) {
	if _, err := fmt.Fprintf(r.Stdout, "$ %q\r\n", r.Command); err != nil || r.Stdin == nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		n, err := r.Stdin.Read(buf)
		if n > 0 {
			if _, err := r.Stdout.Write(bytes.ReplaceAll(buf[:n], []byte("\r"), []byte("\r\n"))); err != nil {
				return 0, err
			}
		}
		if err != nil {
			break
		}
	}
	return 0, ctx.Err()
}

// fill submits tasks for half of the sandboxes and waits until all exist.
func fill(ctx context.Context, store *memory.Store, n int) error {
	teams := []fleet.TenantID{"payments", "search", "mobile", "platform"}
	now := time.Now()
	tasks := make([]fleet.Task, n/2)
	for i := range tasks {
		tasks[i] = fleet.Task{ID: fleet.NewTaskID(now), State: fleet.TaskQueued, SubmittedAt: now, DueAt: now, Spec: fleet.TaskSpec{
			Name: fmt.Sprintf("Fix issue %d", 1000+i), Tenant: teams[i%len(teams)], Template: "default", Pool: "default", Labels: map[string]string{"team": string(teams[i%len(teams)])},
			Command: []string{"claude", "-p", "fix it"}, Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 2 << 30, Pids: 512, DiskBytes: 10 << 30, Files: 1024, LogBytes: 1 << 20},
			Timeouts: fleet.Timeouts{Startup: time.Minute, Run: 24 * time.Hour, Queue: 24 * time.Hour},
		}}
	}
	for at := 0; at < len(tasks); at += 1000 {
		if _, err := store.Submit(ctx, tasks[at:min(len(tasks), at+1000)]); err != nil {
			return err
		}
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		boxes, err := store.Sandboxes(ctx, time.Time{})
		if err != nil {
			return err
		}
		there, busy := 0, 0
		for _, b := range boxes {
			switch b.State {
			case fleet.SandboxReady:
				there++
			case fleet.SandboxClaimed:
				there, busy = there+1, busy+1
			}
		}
		if there >= n && busy >= n/2 {
			return nil
		}
		fmt.Fprintf(os.Stderr, "%d of %d\n", there, n)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
