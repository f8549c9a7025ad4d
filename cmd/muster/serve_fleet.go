package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/web"
)

// serveFleet runs one fleet of this machine, while it is this process's turn.
func serveFleet(ctx context.Context, c daemonConfig) error {
	g, err := openGround(&c)
	if err != nil {
		return err
	}
	defer g.close()
	f, ctx, err := newFront(ctx, g, &c)
	if err != nil {
		return err
	}
	defer f.stop()
	if !c.store.shared() {
		return f.lead(ctx, c)
	}
	if c.kept, err = c.store.open(ctx, c.fleet, c.place()); err != nil {
		return err
	}
	defer func() {
		if err := c.kept.close(); err != nil {
			c.log.Error("close the store", "error", err)
		}
	}()
	err = c.kept.pg.Campaign(ctx, func(term context.Context, number int64) error {
		c.log.Info("leading", "term", number)
		return f.lead(term, c)
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// place is where the fleet of this machine is kept.
func (c *daemonConfig) place() place {
	schema := storeChoice{dsn: "-"}.placeOf(c.dir, "local", c.fleet.Metadata.Name).schema
	return place{file: c.store.file, files: filepath.Join(c.dir, "tasks"), schema: schema}
}

// front is the address of a control plane that may have to stand by.
type front struct {
	*server.Fleets
	ground  *ground
	http    *http.Server
	leading atomic.Bool
	carries string // the fleet whose sandboxes this process carries; empty: it is a control plane
	ready   atomic.Pointer[func(context.Context) error]
	ended   chan struct{}
}

// newFront serves the address at once: 503 until there is something to serve.
// The context it returns ends with ctx, or when the address cannot be served any
// more.
func newFront(ctx context.Context, g *ground, c *daemonConfig) (*front, context.Context, error) {
	return openFront(ctx, &front{ground: g, ended: make(chan struct{})}, c)
}

func openFront(ctx context.Context, f *front, c *daemonConfig) (*front, context.Context, error) {
	g := f.ground
	pages, err := web.New()
	if err != nil {
		return nil, nil, err
	}
	f.Fleets, err = server.NewFleets(server.FleetsConfig{
		Token: g.token, Version: version(), Hosts: c.hosts, Logger: c.log, Ready: f.isReady, Pages: pages,
		Standby: func() string {
			switch {
			case f.carries != "":
				return "this process carries the sandboxes of fleet " + f.carries + "; ask the control plane"
			case f.leading.Load():
				return ""
			}
			return "this replica stands by; another one leads"
		},
	})
	if err != nil {
		return nil, nil, err
	}
	if err := g.tell(c.dir); err != nil {
		return nil, nil, err
	}
	f.http = &http.Server{Handler: f.Fleets, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	ctx, end := context.WithCancel(ctx)
	go func() {
		defer close(f.ended)
		defer end()
		if err := f.http.Serve(g.listener); !errors.Is(err, http.ErrServerClosed) {
			c.log.Error("cannot serve the API any more", "error", fmt.Errorf("serve %s: %w", g.listener.Addr(), err))
		}
	}()
	return f, ctx, nil
}

// isReady tells whether this process can do its part; standing by is one.
func (f *front) isReady(ctx context.Context) error {
	ready := f.ready.Load()
	switch {
	case ready != nil && (f.leading.Load() || f.carries != ""):
		return (*ready)(ctx)
	case f.carries != "":
		return errors.New("what carries the sandboxes has not been opened yet")
	}
	return nil
}

// lead runs the fleet until ctx ends.
func (f *front) lead(ctx context.Context, c daemonConfig) error {
	d, err := openOn(ctx, f.ground, c)
	if err != nil {
		return err
	}
	defer d.closeFleet()
	f.Add("local", c.fleet.Metadata.Name, d.server)
	defer f.Remove("local", c.fleet.Metadata.Name, d.server)
	ready := d.isReady
	f.ready.Store(&ready)
	f.leading.Store(true)
	defer f.leading.Store(false)
	return d.work(ctx, newCrew(ctx))
}

// stop ends the address.
func (f *front) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := f.http.Shutdown(ctx); err != nil {
		_ = f.http.Close()
	}
	<-f.ended
}
