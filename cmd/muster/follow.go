package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/intake"
	vnodes "muster.dev/muster/internal/nodes/virtual"
	vboxes "muster.dev/muster/internal/sandbox/virtual"
)

// openSignal connects to a queue that is only read.
func openSignal(ctx context.Context, q *v1alpha1.Queue, o queueOptions) (fleet.Signal, error) {
	switch {
	case q.Prometheus != nil:
		return openPrometheus(ctx, q.Prometheus, o)
	case q.HTTP != nil:
		return openHTTP(ctx, q.HTTP, o)
	case q.Temporal != nil:
		return openTemporal(ctx, q.Temporal, o)
	}
	o.readOnly = true
	return openSource(ctx, q, o)
}

// followed is a queue that others work off, and who counts the workers.
type followed struct {
	queue   *intake.Follower
	signals []fleet.Signal
}

// openFollowed opens what a fleet of mode scale or shadow reads.
func openFollowed(ctx context.Context, f *v1alpha1.Fleet, o queueOptions) (_ *followed, err error) {
	out := &followed{}
	defer func() {
		if err != nil {
			_ = out.close()
		}
	}()
	c := intake.FollowConfig{Name: f.Spec.Queue.Type, Pool: fleet.PoolKey(f.Spec.Templates[0].Name), Logger: o.log}
	if c.Signal, err = openSignal(ctx, &f.Spec.Queue, o); err != nil {
		return out, err
	}
	out.signals = append(out.signals, c.Signal)
	if a := f.Spec.Workers.Actual; a != nil {
		if c.Workers, err = openSignal(ctx, &v1alpha1.Queue{Prometheus: a.Prometheus, HTTP: a.HTTP}, o); err != nil {
			return out, fmt.Errorf("spec.workers.actual: %w", err)
		}
		out.signals = append(out.signals, c.Workers)
	}
	out.queue, err = intake.NewFollower(c)
	return out, err
}

func (f *followed) close() error {
	var errs []error
	for _, s := range f.signals {
		errs = append(errs, s.Close())
	}
	f.signals = nil
	return errors.Join(errs...)
}

// configure makes a loop's configuration that of a fleet whose workers somebody
// else runs.
func (f *followed) configure(c *control.Config, spec *v1alpha1.FleetSpec) error {
	start, err := duration("spec.workers.startup", spec.Workers.Startup)
	if err != nil {
		return err
	}
	boot, err := duration("spec.nodes.boot", spec.Nodes.Boot)
	if err != nil {
		return err
	}
	p := &c.Spec.Policy
	p.PriorLead = fleet.Lead{P50: start, P95: start, P99: start}
	p.Nodes.Scalable, p.Nodes.Slots, p.Nodes.BootLead, p.Nodes.Max = true, spec.Nodes.Slots, boot, spec.Nodes.Max
	p.Nodes.NoFill = true // idle workers of others are not free, whatever node they are on
	var size fleet.Resources
	for _, t := range c.Spec.Templates {
		size.MilliCPU = max(size.MilliCPU, t.Resources.MilliCPU)
		size.MemoryBytes = max(size.MemoryBytes, t.Resources.MemoryBytes)
		size.DiskBytes = max(size.DiskBytes, t.Resources.DiskBytes)
	}
	n := int64(spec.Nodes.Slots) // a node is as large as what it is said to hold
	c.Nodes = vnodes.New(vnodes.Options{
		Node: fleet.Node{MilliCPU: n * size.MilliCPU, MemoryBytes: n * size.MemoryBytes, DiskBytes: n * size.DiskBytes, Slots: spec.Nodes.Slots},
		Boot: boot, Max: spec.Nodes.Max,
	})
	c.Sandboxes = vboxes.New(start)
	c.Queue, c.Follow, c.Workers = f.queue, true, f.queue.WorkersNow
	return nil
}

// readOnce reads until there is a reading or ctx ends.
func (f *followed) readOnce(ctx context.Context) error {
	for {
		f.queue.Read(ctx)
		r := f.queue.Readings(ctx)[0]
		if r.Err == nil || ctx.Err() != nil {
			return r.Err
		}
		select {
		case <-ctx.Done():
			return r.Err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
