package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/intake"
	"muster.dev/muster/internal/ledger"
	"muster.dev/muster/internal/schedule"
	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/store/metered"
	"muster.dev/muster/internal/tracing"
	"muster.dev/muster/internal/web"
	"muster.dev/muster/internal/webhook"
)

// unitConfig is what one fleet works with. What is opened here already is the
// caller's to close.
type unitConfig struct {
	fleet     *v1alpha1.Fleet
	written   fleet.Revision // the fleet as it was written
	reviser   server.Reviser
	store     fleet.Store
	embedded  fleet.Queue
	archive   fleet.Archive
	sandboxes fleet.Sandboxes // nil where others run the workers
	nodes     fleet.Nodes     // likewise
	secrets   fleet.Secrets
	// parse reads a specification as a start would, without a look at what files
	// there are; nil: as a file's.
	parse func([]byte) (*v1alpha1.Fleet, error)
	// policy completes what follows from where the nodes are; may be nil.
	policy   func(*control.Spec)
	name     string // by which an outside queue knows us; empty: of fleet and host
	token    string
	hosts    []string // names the API is reached by
	parallel int
	forward  *server.Forwarding // to the fleet's consumers; nil: it has none
	log      *slog.Logger
}

// unit is one fleet with everything that works for it but what it stands on:
// the loop, the API, the queue, webhooks, schedules. `muster up` has one, `muster
// serve` one for each fleet.
type unit struct {
	unitConfig
	now      atomic.Pointer[v1alpha1.Fleet] // the fleet in force
	registry *prometheus.Registry
	meter    *server.Meter
	tenants  tenanted // the store itself: u.store is one around it
	control  *control.Engine
	server   *server.Server
	hooks    *webhook.Service
	feed     *webhook.Feed   // events of the fleet for hooks
	tracer   *tracing.Tracer // nil: nobody asked for traces
	cron     *schedule.Service
	ledger   *ledger.Service // nil where others run the workers
	source   fleet.Source    // nil: no outside queue
	intake   *intake.Queue   // likewise
	followed *followed       // nil where Muster runs the tasks
	keda     *kedaService    // nil: not asked for
}

// openUnit wires a fleet; nothing runs yet. What was opened is closed again
// when a later step fails.
func openUnit(ctx context.Context, c unitConfig) (_ *unit, err error) {
	u := &unit{unitConfig: c, registry: prometheus.NewRegistry()}
	u.now.Store(c.fleet)
	defer func() {
		if err != nil {
			err = errors.Join(err, u.close())
		}
	}()
	u.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	meter, err := server.NewMeter(u.registry)
	if err != nil {
		return nil, err
	}
	u.meter = meter
	u.tenants, _ = c.store.(tenanted)
	u.store = metered.New(c.store, meter.Stored, meter.Happened)
	if c.embedded != nil {
		u.embedded = metered.NewQueue(c.embedded, meter.Stored)
	}
	u.feed = webhook.NewFeed(webhook.FeedOptions{Fleet: c.fleet.Metadata.Name, Journal: u.store, Endpoints: u.endpoints, Logger: c.log})
	u.hooks = webhook.New(webhook.Options{Tasks: u.store, Logger: c.log, UserAgent: "muster/" + version(), Key: webhookKey(c.fleet, c.secrets), Notices: u.notices, Tried: hookMeter(meter)})
	loop, err := u.loop()
	if err != nil {
		return nil, err
	}
	if err = u.workOn(ctx, &loop); err != nil {
		return nil, err
	}
	if u.tracer, err = openTracer(ctx, u); err != nil {
		return nil, err
	}
	loop.Observe, loop.Meter, loop.Traced = listeners{meter, u.hooks, u.intake, u.tracer}, meter, u.tracer != nil
	if !c.fleet.Spec.Follows() {
		loop.Purse = purse{u} // opened below, before anything runs
	}
	if u.control, err = control.New(loop); err != nil {
		return nil, err
	}
	pages, err := web.New()
	if err != nil {
		return nil, err
	}
	if u.ledger, err = openLedger(ctx, u); err != nil {
		return nil, err
	}
	api := server.Config{
		Store: u.store, Archive: c.archive, Engine: u.control, Fleet: u.now.Load, Hosts: c.hosts,
		Token: c.token, Version: version(), Logger: c.log, Ready: u.isReady, Registry: u.registry,
		Forward: c.forward, Reviser: c.reviser, Pages: pages,
	}
	if u.ledger != nil {
		api.Ledger, api.Adviser = u.ledger, openAdviser(u)
	}
	api.Evidence = openEvidence(u).Evidence
	u.server, err = server.New(api)
	if err != nil {
		return nil, err
	}
	u.keepRevision(ctx, c.written)
	u.cron = schedule.New(schedule.Config{Store: u.store, Submit: u.server.SubmitScheduled, Events: u.store, Logger: c.log})
	u.keda, err = openKEDA(u)
	return u, err
}

// loop is the configuration of the control loop but for what it works on.
func (u *unit) loop() (control.Config, error) {
	spec, err := u.spec(u.fleet)
	if err != nil {
		return control.Config{}, err
	}
	visibility, err := duration("spec.queue.visibility", u.fleet.Spec.Queue.Visibility)
	if err != nil {
		return control.Config{}, err
	}
	return control.Config{
		Store: u.store, Archive: u.archive, Secrets: forTasks{u.secrets, u.fleet.Spec.Webhooks.Secret},
		Spec: spec, Variant: v1alpha1.Variant, Logger: u.log, Consumer: fmt.Sprintf("muster/%d", os.Getpid()),
		Visibility: visibility, ParallelStarts: u.parallel, Consumers: u.fleet.Spec.HasConsumers(),
	}, nil
}

// spec is a fleet as the loop wants it.
func (u *unit) spec(f *v1alpha1.Fleet) (control.Spec, error) {
	s, err := controlSpec(f)
	if err == nil && u.policy != nil {
		u.policy(&s)
	}
	return s, err
}

// workOn opens what the loop works on: a queue, sandboxes, nodes.
func (u *unit) workOn(ctx context.Context, loop *control.Config) (err error) {
	if u.fleet.Spec.Follows() {
		if u.followed, err = openFollowed(ctx, u.fleet, queueOptions{log: u.log, consumer: u.consumer()}); err != nil {
			return err
		}
		return u.followed.configure(loop, &u.fleet.Spec)
	}
	loop.Sandboxes, loop.Nodes = u.sandboxes, u.nodes
	loop.Queue, err = u.openQueue(ctx)
	return err
}

// update takes a changed fleet over; see v1alpha1.Fleet.MustBeRestarted.
func (u *unit) update(f *v1alpha1.Fleet) error {
	spec, err := u.spec(f)
	if err != nil {
		return err
	}
	if u.ledger != nil {
		t, err := tariffOf(f)
		if err != nil {
			return err
		}
		u.ledger.SetTariff(t, f.Spec.Cost.Labels)
		u.ledger.SetBudgets(budgetsOf(f))
	}
	u.now.Store(f)
	u.control.SetSpec(spec)
	return nil
}

func (u *unit) isReady(ctx context.Context) error {
	if err := u.control.Ready(ctx); err != nil {
		return err
	}
	return u.store.Ping(ctx)
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// parts are what has to run for the fleet to work.
func (u *unit) parts() []part {
	out := []part{{"fleet", u.control.Run}, {"webhooks", u.hooks.Run}, {"events for webhooks", u.feed.Run}, {"schedules", u.cron.Run}}
	if u.tracer != nil {
		out = append(out, part{"traces", u.tracer.Run})
	}
	if u.intake != nil {
		out = append(out, part{"queue", u.intake.Run})
	}
	if u.ledger != nil {
		out = append(out, part{"ledger", u.ledger.Run})
	}
	if u.keda != nil {
		out = append(out, part{"external scaler", u.keda.run})
	}
	if u.followed != nil {
		out = append(out, part{"queue", u.followed.queue.Run})
	}
	return out
}

// close ends the connections that the unit has opened itself.
func (u *unit) close() error {
	if u.keda != nil {
		_ = u.keda.listener.Close()
	}
	return u.closeQueue()
}

// crew runs parts side by side.
type crew struct {
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup
	failed chan error // the first of those that failed before they were told to end
}

// newCrew returns a crew that outlives ctx: it ends with stop.
func newCrew(ctx context.Context) *crew {
	c := &crew{failed: make(chan error, 1)}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

func (c *crew) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// start lets parts run.
func (c *crew) start(parts ...part) {
	for _, p := range parts {
		c.wg.Go(func() {
			if err := p.run(c.ctx); err != nil && c.ctx.Err() == nil {
				c.fail(fmt.Errorf("%s: %w", p.name, err))
			}
		})
	}
}
