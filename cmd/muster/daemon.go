package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/image"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/store/sqlite"
)

// daemonConfig is what `muster up`, or `muster serve` with a fleet of its own,
// was asked for.
type daemonConfig struct {
	dir      string
	fleet    *v1alpha1.Fleet
	written  fleet.Revision // the fleet as it was written
	files    fleetFiles
	listen   string
	token    string // empty: that of the data directory
	hosts    []string
	store    storeChoice
	kept     *kept // what is open of the store already; nil: nothing
	runner   string
	runtimes string
	onStop   string
	parallel int
	log      *slog.Logger
}

// daemon is one control plane on one machine with everything it runs on.
type daemon struct {
	*unit
	cfg    daemonConfig
	ground *ground
	keep   *kept
	images *image.Cache
	boxes  *oci.Sandboxes // nil where others run the workers
}

// ground is what a control plane of one machine has before it knows its store:
// the data directory and the API's address.
type ground struct {
	lock     *sqlite.DirLock
	token    string
	listener net.Listener
}

// openGround takes the data directory and the address.
func openGround(c *daemonConfig) (_ *ground, err error) {
	// A control plane idles most of its life: give memory back rather than
	// keep it for the next burst.
	debug.SetGCPercent(50)
	g := &ground{token: c.token}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.lock, err = sqlite.Lock(c.dir); err != nil {
		return nil, err
	}
	if g.token == "" {
		if g.token, err = loadToken(c.dir); err != nil {
			return nil, err
		}
	}
	g.listener, err = listen(c.listen)
	return g, err
}

func (g *ground) address() string { return "http://" + g.listener.Addr().String() }

// tell writes the address for the commands on this machine.
func (g *ground) tell(dir string) error {
	if err := writePrivate(filepath.Join(dir, "address"), []byte(g.address()+"\n")); err != nil {
		return fmt.Errorf("write the address: %w", err)
	}
	return nil
}

func (g *ground) close() {
	if g.listener != nil {
		_ = g.listener.Close()
	}
	if g.lock != nil {
		_ = g.lock.Release()
	}
}

// openDaemon opens and wires everything; nothing runs yet. What was opened is
// closed again when a later step fails.
func openDaemon(ctx context.Context, c daemonConfig) (_ *daemon, err error) {
	g, err := openGround(&c)
	if err != nil {
		return nil, err
	}
	d, err := openOn(ctx, g, c)
	if err != nil {
		g.close()
	}
	return d, err
}

// openOn opens a fleet of this machine; the ground stays the caller's when it
// fails.
func openOn(ctx context.Context, g *ground, c daemonConfig) (_ *daemon, err error) {
	d := &daemon{cfg: c, ground: g}
	defer func() {
		if err != nil {
			d.closeFleet()
		}
	}()
	if d.keep = c.kept; d.keep == nil {
		if d.keep, err = c.store.open(ctx, c.fleet, c.place()); err != nil {
			return nil, err
		}
	}
	u := unitConfig{
		fleet: c.fleet, store: d.keep.store, embedded: d.keep.queue, archive: d.keep.archive, secrets: localSecrets(c.fleet),
		written: c.written, parse: checkForm, token: g.token, hosts: c.hosts, parallel: c.parallel, log: c.log,
	}
	back := &localReviser{files: c.files, shared: c.store.shared()}
	u.reviser = back
	if !c.fleet.Spec.Follows() {
		if d.images, err = openImages(c); err != nil {
			return nil, err
		}
		if d.boxes, err = openSandboxes(ctx, c, d.images); err != nil {
			return nil, err
		}
		u.sandboxes = d.boxes
		if u.nodes, err = hostNode(c); err != nil {
			return nil, err
		}
	}
	if d.unit, err = openUnit(ctx, u); err == nil {
		back.unit = d.unit
	}
	return d, err
}

// listen opens the API's address and explains the usual failures.
func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, withHint(fmt.Errorf("the address %s is in use by another program", addr),
			"choose another with --listen, for example --listen 127.0.0.1:0 for any free port")
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EACCES):
		return nil, withHint(fmt.Errorf("cannot listen on %s: %w", addr, err), "choose another address with --listen")
	case err != nil:
		return nil, usageError("--listen %q: %v; want HOST:PORT such as 127.0.0.1:7433", addr, err)
	}
	return l, nil
}

// run serves until ctx ends, then stops in order.
func (d *daemon) run(ctx context.Context) error {
	work := newCrew(ctx)
	defer work.stop()
	work.wg.Go(func() {
		if err := d.server.Serve(d.ground.listener); err != nil {
			work.fail(fmt.Errorf("serve the API: %w", err))
		}
	})
	if err := d.ground.tell(d.cfg.dir); err != nil {
		work.fail(err)
	}
	return d.work(ctx, work)
}

// work lets everything but the API run until ctx ends or a part fails, and
// stops it in order.
func (d *daemon) work(ctx context.Context, work *crew) error {
	work.start(d.parts()...)
	work.start(part{"memory", giveBackStart})
	if d.images != nil {
		work.start(part{"images", d.keepImagesTidy})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-work.failed:
	}
	return errors.Join(err, d.stop(work))
}

// stop ends the parts in the order in which work flows through them.
func (d *daemon) stop(work *crew) error {
	// A second Ctrl-C ends the waiting.
	again, unhook := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer unhook()
	d.quiesce(again)
	bounded, cancel := context.WithTimeout(again, 25*time.Second)
	defer cancel()
	if err := d.server.Shutdown(bounded); err != nil {
		d.log.Warn("some requests were cut off", "error", err)
	}
	work.stop()
	work.wg.Wait()
	if d.followed != nil {
		return nil // what is only counted goes on being counted
	}
	return d.control.RemoveWaiting(bounded)
}

// quiesce deals with running tasks as --on-stop says.
func (d *daemon) quiesce(ctx context.Context) {
	n := d.control.Dispatcher().Active()
	switch {
	case n == 0:
		return
	case d.cfg.onStop == "keep":
		d.log.Info("running tasks go on in their sandboxes; the next `muster up` takes them over, `muster down` removes them", "tasks", n)
		return
	case d.cfg.onStop == "drain":
		d.log.Info("waiting for running tasks; a second Ctrl-C leaves them", "tasks", n)
	default:
		d.log.Info("cancelling running tasks", "tasks", n)
	}
	if err := d.control.Quiesce(ctx, d.cfg.onStop == "cancel"); err != nil {
		d.log.Warn("stopping with tasks still running", "error", err)
	}
}

func (d *daemon) address() string { return d.ground.address() }

// close releases what was opened, in reverse order. Sandboxes are left alone.
func (d *daemon) close() {
	d.closeFleet()
	d.ground.close()
}

// closeFleet releases all but the ground.
func (d *daemon) closeFleet() {
	if d.unit != nil {
		if err := d.unit.close(); err != nil {
			d.cfg.log.Warn("the queue", "error", err)
		}
	}
	if d.boxes != nil {
		_ = d.boxes.Close()
	}
	if d.images != nil {
		_ = d.images.Close()
	}
	if d.keep != nil && d.cfg.kept == nil {
		if err := d.keep.close(); err != nil {
			d.cfg.log.Error("close the store", "error", err)
		}
	}
}
