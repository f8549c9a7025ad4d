package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
	_ "time/tzdata" // schedules and floors need zones on machines without them

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/intake"
	"muster.dev/muster/internal/nodes/host"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/image"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/secret"
	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/tracing"
	"muster.dev/muster/internal/webhook"
)

// localNode is the name of this machine as a node.
const localNode fleet.NodeID = "local"

// openSandboxes finds the runner and opens the sandbox adapter.
func openSandboxes(ctx context.Context, c daemonConfig, images *image.Cache) (*oci.Sandboxes, error) {
	runner, err := findRunner(c.runner)
	if err != nil {
		return nil, err
	}
	bin := c.runtimes
	if bin == "" {
		bin = filepath.Join(c.dir, "bin")
	}
	return oci.New(ctx, oci.Options{
		Dir: filepath.Join(c.dir, "sandboxes"), Runner: runner, Bin: bin, Images: images, Node: localNode,
		Parallel: c.parallel, Logger: c.log,
	})
}

// findRunner looks for muster-runner: as told, beside this program, on PATH.
func findRunner(given string) (string, error) {
	if given != "" {
		if st, err := os.Stat(given); err != nil || !st.Mode().IsRegular() {
			return "", usageError("--runner %q is not a program; want the path of muster-runner", given)
		}
		return filepath.Abs(given)
	}
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), "muster-runner"); isFile(p) {
			return p, nil
		}
	}
	if p, err := exec.LookPath("muster-runner"); err == nil {
		return filepath.Abs(p)
	}
	return "", withHint(fmt.Errorf("muster-runner is neither beside muster nor on PATH"), "build both with `make build`, or name it with --runner")
}

// listeners hear of starts and ends: the metrics, and the webhooks that are
// due then.
type listeners struct {
	*server.Meter
	hooks  *webhook.Service
	intake *intake.Queue   // nil: no outside queue
	tracer *tracing.Tracer // nil: nobody asked for traces
}

// Settled implements dispatch.Observer.
func (l listeners) Settled(t fleet.Task) {
	l.Meter.Settled(t)
	if l.tracer != nil {
		l.tracer.Settled(t)
	}
	if t.Spec.Webhook != "" {
		l.hooks.Wake()
	}
	if l.intake != nil {
		l.intake.Settled(t)
	}
}

// openTracer opens what exports traces; nil where the environment asks for none.
func openTracer(ctx context.Context, u *unit) (*tracing.Tracer, error) {
	on, err := tracing.Enabled(os.Getenv)
	if !on {
		return nil, err
	}
	return tracing.Open(ctx, tracing.Options{Journal: u.store, Fleet: u.fleet.Metadata.Name, Version: version(), Logger: u.log})
}

// hookMeter counts attempts to deliver webhooks.
func hookMeter(m *server.Meter) func(delivered, again bool) {
	return func(delivered, again bool) {
		switch {
		case delivered:
			m.Hooked(server.HookDelivered)
		case again:
			m.Hooked(server.HookFailed)
		default:
			m.Hooked(server.HookGivenUp)
		}
	}
}

func isFile(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular()
}

// localSecrets are those of this machine.
func localSecrets(f *v1alpha1.Fleet) fleet.Secrets {
	s := secret.Source{Dir: f.Spec.Secrets.Dir}
	if f.Spec.Secrets.Env {
		s.Env = os.LookupEnv
	}
	return s
}

// webhookKey reads the key that webhooks are signed with, each time anew; nil
// when they are not to be signed.
func webhookKey(f *v1alpha1.Fleet, secrets fleet.Secrets) func(context.Context) ([]byte, error) {
	name := f.Spec.Webhooks.Secret
	if name == "" {
		return nil
	}
	return func(ctx context.Context) ([]byte, error) {
		v, err := secrets.Secret(ctx, name)
		return []byte(v), err
	}
}

// forTasks is the secrets that tasks may name: all but the key of webhooks.
type forTasks struct {
	fleet.Secrets
	but string
}

// Secret implements fleet.Secrets.
func (s forTasks) Secret(ctx context.Context, name string) (string, error) {
	if name == s.but {
		return "", fmt.Errorf("secret %q signs webhooks and is not for tasks: %w", name, fleet.ErrNotFound)
	}
	return s.Secrets.Secret(ctx, name)
}

// controlSpec is the fleet as the loop wants it.
func controlSpec(f *v1alpha1.Fleet) (control.Spec, error) {
	templates, err := f.TemplateSpecs()
	if err != nil {
		return control.Spec{}, err
	}
	s := control.Spec{Name: f.Metadata.Name, Templates: templates}
	s.Policy.Min, s.Policy.Max = f.Spec.Capacity.Sandboxes.Min, f.Spec.Capacity.Sandboxes.Max
	s.Policy.Budget.PerHour = microUSD(f.Spec.Cost.Budget.PerHour)
	s.Policy.Budget.PerDay = microUSD(f.Spec.Cost.Budget.PerDay)
	s.Policy.Budget.PerMonth = microUSD(f.Spec.Cost.Budget.PerMonth)
	s.Policy.Budget.NodeHour = microUSD(f.Spec.Cost.NodeHour())
	if s.Policy.Objective, err = duration("spec.objective.startP99", f.Spec.Objective.StartP99); err != nil {
		return s, err
	}
	if err = scaling(f, &s.Policy); err != nil {
		return s, err
	}
	if s.Retention, err = duration("spec.retention.tasks", f.Spec.Retention.Tasks); err != nil {
		return s, err
	}
	if c := f.Spec.Consumers; c != nil {
		s.Consumers = plan.ConsumerPolicy{Sandboxes: c.SandboxesPerReplica}
		s.Consumers.Min, s.Consumers.Max = c.Bounds()
	}
	s.Floors, err = floors(f)
	return s, err
}

// scaling is how a fleet weighs money against waiting; zero is the planner's
// default.
func scaling(f *v1alpha1.Fleet, p *plan.Policy) error {
	c := &f.Spec.Scaling
	p.Nodes.LateShare, p.Nodes.PriceMax, p.Nodes.Keep = c.LateShare, c.LatePriceMax, c.KeepFactor
	p.Quantile = c.WarmQuantile
	var err error
	p.HoldWarm, err = duration("spec.scaling.holdWarm", c.HoldWarm)
	return err
}

func hostNode(c daemonConfig) (*host.Nodes, error) {
	n := c.fleet.Spec.Nodes
	o := host.Options{ID: localNode, Dir: c.dir, Slots: n.Slots, OvercommitCPU: n.OvercommitCPU, OvercommitMem: n.OvercommitMemory}
	var err error
	if n.ReserveCPUs != "" {
		if o.ReserveMilliCPU, err = n.ReserveCPUs.Milli(); err != nil {
			return nil, fmt.Errorf("spec.nodes.reserveCPUs: %w", err)
		}
	}
	if n.ReserveMemory != "" {
		if o.ReserveMemory, err = n.ReserveMemory.Bytes(); err != nil {
			return nil, fmt.Errorf("spec.nodes.reserveMemory: %w", err)
		}
	}
	return host.New(o)
}

func microUSD(usd float64) int64 { return int64(usd*1e6 + 0.5) }

// duration reads a field that validation has passed; empty is zero.
func duration(field, s string) (time.Duration, error) {
	if s == "" || s == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	return d, nil
}
