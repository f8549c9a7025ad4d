package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/consumer"
	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
	skube "muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/tracing"
)

// carrying is a consumer over the versions of its fleet. What a change of the
// fleet takes a new start for begins beside what is there, which then hands over
// to it and to others.
type carrying struct {
	k       *cluster
	key     operator.Key
	address string
	now     *shift
	store   atomic.Pointer[fleet.Store] // of now
	former  sync.WaitGroup
}

// shift is one consumer: what it works with, from one start to its end.
type shift struct {
	c      *carrying
	fleet  operator.Fleet
	keep   *kept
	boxes  *skube.Sandboxes
	name   string
	drives *consumer.Consumer
	api    *server.Server
	stop   context.CancelFunc
	ended  chan error
}

// run carries until ctx ends, and hands over then; life ends when that makes no
// sense any more.
func (c *carrying) run(ctx, life context.Context) error {
	defer c.former.Wait()
	watch, cease := context.WithCancel(life)
	defer cease()
	object, err := operator.Follow(watch, c.k.dynamic, c.key, c.k.past, c.k.log)
	if err != nil {
		return err
	}
	ready := func(ctx context.Context) error { return c.ready(ctx, object) }
	for {
		f, err := object.Now()
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, fleet.ErrNotFound) || err == nil && !f.Spec.Spec.HasConsumers():
			c.k.log.Info("the fleet has no consumers any more", "fleet", c.key.String())
			return c.leave()
		case err == nil:
			if err := c.adapt(ctx, life, f); err != nil {
				return errors.Join(err, c.leave())
			}
			c.k.front.ready.CompareAndSwap(nil, &ready)
		}
		var ended <-chan error
		if c.now != nil {
			ended = c.now.ended
		}
		select {
		case <-ctx.Done():
			return c.leave()
		case <-object.Changed():
		case err := <-ended:
			c.now.stop()
			c.now.close()
			c.now = nil
			return fmt.Errorf("the consumer ended: %w", err)
		}
	}
}

// ready says why nothing is carried yet.
func (c *carrying) ready(ctx context.Context, object *operator.Followed) error {
	f, err := object.Now()
	if err != nil {
		return err
	}
	if !f.Spec.Spec.HasConsumers() {
		return fmt.Errorf("fleet %s has no consumers: %w", c.key, fleet.ErrConflict)
	}
	if s := c.store.Load(); s != nil {
		return (*s).Ping(ctx)
	}
	return errors.New("nothing is carried yet")
}

// adapt takes a version of the fleet over.
func (c *carrying) adapt(ctx, life context.Context, f operator.Fleet) error {
	old := c.now
	if old != nil {
		changed := old.fleet.UID != f.UID || carriesOtherwise(&old.fleet.Spec.Spec, &f.Spec.Spec)
		if old.fleet = f; !changed {
			return nil // what else changes comes with the records of sandboxes
		}
		c.k.log.Info("a new start, to take the fleet's change over", "fleet", c.key.String())
	}
	s, err := c.open(ctx, f)
	if err != nil {
		return err
	}
	c.now = s
	s.start(life)
	if old != nil {
		c.former.Go(func() {
			if err := old.end(); err != nil {
				c.k.log.Warn("a consumer did not end well", "fleet", c.key.String(), "consumer", old.name, "error", err)
			}
		})
	}
	return nil
}

// carriesOtherwise tells whether a consumer needs a new start for a change of its
// fleet: where its pods run and with what, what its store knows of tenants.
func carriesOtherwise(a, b *v1alpha1.FleetSpec) bool {
	return !reflect.DeepEqual(a.Nodes.Kubernetes, b.Nodes.Kubernetes) || !reflect.DeepEqual(a.Queue, b.Queue) ||
		!v1alpha1.SameShares(a.Tenants, b.Tenants) || a.Secrets != b.Secrets || a.Webhooks.Secret != b.Webhooks.Secret
}

// leave ends what is carried here, once it is handed over.
func (c *carrying) leave() error {
	if c.now == nil {
		return nil
	}
	return c.now.end()
}

// open opens what a consumer works with.
func (c *carrying) open(ctx context.Context, f operator.Fleet) (_ *shift, err error) {
	k := c.k
	s := &shift{c: c, fleet: f, name: consumerName(), ended: make(chan error, 1)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.keep, err = k.c.store.open(ctx, f.Spec, k.c.store.placeOf(k.c.dir, f.Namespace, f.Name)); err != nil {
		return nil, err
	}
	if s.boxes, err = k.openBoxes(ctx, f); err != nil {
		return nil, err
	}
	visibility, err := duration("spec.queue.visibility", f.Spec.Spec.Queue.Visibility)
	if err != nil {
		return nil, err
	}
	log := k.log.With("fleet", f.Key.String(), "consumer", s.name)
	traced, err := tracing.Enabled(os.Getenv)
	if err != nil {
		return nil, err
	}
	s.drives, err = consumer.New(consumer.Config{
		Store: s.keep.store, Queue: s.keep.queue, Archive: s.keep.archive, Sandboxes: s.boxes,
		Secrets: forTasks{k.secrets(f), f.Spec.Spec.Webhooks.Secret},
		Name:    s.name, Address: c.address, Logger: log, Visibility: visibility, ParallelStarts: k.c.parallel,
		Traced: traced,
	})
	if err != nil {
		return nil, err
	}
	s.api, err = server.New(server.Config{
		Store: s.keep.store, Archive: s.keep.archive, Engine: carrier{s.drives.Dispatcher(), s.boxes},
		Fleet: func() *v1alpha1.Fleet { return f.Spec }, Token: k.front.ground.token, Version: version(), Logger: log, Hosts: k.c.hosts,
	})
	return s, err
}

// start lets it carry, until end.
func (s *shift) start(life context.Context) {
	k := s.c.k
	k.owners.set(s.fleet.Key, s.keep.store)
	k.owners.is(s.name, true)
	s.c.store.Store(&s.keep.store)
	k.front.Add(s.fleet.Namespace, s.fleet.Name, s.api)
	var ctx context.Context
	ctx, s.stop = context.WithCancel(life)
	go func() {
		followed := make(chan struct{})
		go func() {
			defer close(followed)
			followHeld(ctx, s.keep.store, s.fleet.Spec)
		}()
		err := s.drives.Run(ctx)
		s.stop()
		<-followed
		s.ended <- err
	}()
	k.log.Info("carrying", "fleet", s.fleet.Key.String(), "consumer", s.name, "address", s.c.address)
}

// end hands over and closes.
func (s *shift) end() error {
	s.stop()
	err := <-s.ended
	s.close()
	return err
}

func (s *shift) close() {
	k := s.c.k
	var errs []error
	if s.api != nil {
		k.front.Remove(s.fleet.Namespace, s.fleet.Name, s.api)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.api.Shutdown(ctx); err != nil {
			k.log.Info("some requests were cut off", "error", err)
		}
	}
	k.owners.is(s.name, false)
	if s.keep != nil {
		k.owners.unset(s.fleet.Key, s.keep.store)
	}
	if s.boxes != nil {
		errs = append(errs, s.boxes.Close())
	}
	if s.keep != nil {
		errs = append(errs, s.keep.close())
	}
	if err := errors.Join(errs...); err != nil {
		k.log.Warn("a consumer was not closed well", "fleet", s.fleet.Key.String(), "error", err)
	}
}

// carrier answers of the sandboxes that are carried here; the rest is the
// control plane's.
type carrier struct {
	*dispatch.Dispatcher
	boxes fleet.Sandboxes
}

var _ server.Engine = carrier{}

var errElsewhere = fmt.Errorf("this process only carries sandboxes; ask the control plane: %w", fleet.ErrUnavailable)

// SandboxUsage implements server.Engine.
func (c carrier) SandboxUsage(ctx context.Context, id fleet.SandboxID) (fleet.Usage, error) {
	return c.boxes.Usage(ctx, id)
}

// View implements server.Engine.
func (carrier) View(context.Context) (fleet.View, error) { return fleet.View{}, errElsewhere }

// ExplainTask implements server.Engine.
func (carrier) ExplainTask(context.Context, fleet.TaskID) (fleet.Explanation, error) {
	return fleet.Explanation{}, errElsewhere
}

// ExplainEvent implements server.Engine.
func (carrier) ExplainEvent(context.Context, int64) (fleet.Explanation, error) {
	return fleet.Explanation{}, errElsewhere
}

// Forecast implements server.Engine.
func (carrier) Forecast(context.Context, fleet.ForecastQuery) (fleet.Forecast, error) {
	return fleet.Forecast{}, errElsewhere
}

// LeadTimes implements server.Engine.
func (carrier) LeadTimes(context.Context) (fleet.LeadTimes, error) {
	return fleet.LeadTimes{}, errElsewhere
}

// Shadow implements server.Engine.
func (carrier) Shadow(context.Context, time.Time) (fleet.Shadow, error) {
	return fleet.Shadow{}, errElsewhere
}
