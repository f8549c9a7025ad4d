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
	"sync"
	"syscall"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/intake"
	"muster.dev/muster/internal/sandbox/image"
	"muster.dev/muster/internal/sandbox/oci"
	"muster.dev/muster/internal/schedule"
	"muster.dev/muster/internal/server"
	"muster.dev/muster/internal/store/sqlite"
	"muster.dev/muster/internal/webhook"
)

// daemonConfig is what `muster up` was asked for.
type daemonConfig struct {
	dir      string
	fleet    *v1alpha1.Fleet
	listen   string
	runner   string
	runtimes string
	onStop   string
	parallel int
	log      *slog.Logger
}

// daemon is one control plane with everything it runs on.
type daemon struct {
	cfg      daemonConfig
	lock     *sqlite.DirLock
	listener net.Listener
	token    string
	db       *sqlite.DB
	archive  *archive.Archive
	images   *image.Cache
	boxes    *oci.Sandboxes // nil where others run the workers
	control  *control.Engine
	server   *server.Server
	hooks    *webhook.Service
	cron     *schedule.Service
	source   fleet.Source  // nil: no outside queue
	intake   *intake.Queue // likewise
	followed *followed     // nil where Muster runs the tasks
	keda     *kedaService  // nil: not asked for
}

// openDaemon opens and wires everything; nothing runs yet. What was opened is
// closed again when a later step fails.
func openDaemon(ctx context.Context, c daemonConfig) (_ *daemon, err error) {
	// A control plane idles most of its life: give memory back rather than
	// keep it for the next burst.
	debug.SetGCPercent(50)
	d := &daemon{cfg: c}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.lock, err = sqlite.Lock(c.dir); err != nil {
		return nil, err
	}
	if d.token, err = loadToken(c.dir); err != nil {
		return nil, err
	}
	if d.listener, err = listen(c.listen); err != nil {
		return nil, err
	}
	if d.db, err = sqlite.Open(ctx, filepath.Join(c.dir, "muster.db"), storeOptions(c.fleet)); err != nil {
		return nil, err
	}
	if d.archive, err = archive.Open(filepath.Join(c.dir, "tasks"), archive.Options{}); err != nil {
		return nil, err
	}
	if !c.fleet.Spec.Follows() {
		if d.images, err = openImages(c); err != nil {
			return nil, err
		}
		if d.boxes, err = openSandboxes(ctx, c, d.images); err != nil {
			return nil, err
		}
	}
	if err = d.wire(ctx); err != nil {
		return nil, err
	}
	if d.keda, err = openKEDA(d); err != nil {
		return nil, err
	}
	return d, nil
}

func storeOptions(f *v1alpha1.Fleet) sqlite.Options {
	o := sqlite.Options{MaxBacklog: f.Spec.Queue.MaxBacklog, Tenants: map[fleet.TenantID]sqlite.Share{}}
	for _, t := range f.Spec.Tenants {
		o.Tenants[fleet.TenantID(t.Name)] = sqlite.Share{Weight: t.Weight, MaxRunning: t.MaxRunning}
	}
	return o
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
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	failed := make(chan error, 8)
	var wg sync.WaitGroup
	spawn := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(work); err != nil && work.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	wg.Go(func() {
		if err := d.server.Serve(d.listener); err != nil {
			failed <- fmt.Errorf("serve the API: %w", err)
		}
	})
	var err error
	if err = writePrivate(filepath.Join(d.cfg.dir, "address"), []byte(d.address()+"\n")); err != nil {
		failed <- fmt.Errorf("write the address: %w", err)
	}
	spawn("fleet", d.control.Run)
	spawn("webhooks", d.hooks.Run)
	spawn("schedules", d.cron.Run)
	spawn("memory", giveBackStart)
	if d.images != nil {
		spawn("images", d.keepImagesTidy)
	}
	if d.intake != nil {
		spawn("queue", d.intake.Run)
	}
	if d.keda != nil {
		spawn("external scaler", d.keda.run)
	}
	if d.followed != nil {
		spawn("queue", d.followed.queue.Run)
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, d.stop(stopWork, &wg))
}

// stop ends the parts in the order in which work flows through them.
func (d *daemon) stop(stopWork context.CancelFunc, wg *sync.WaitGroup) error {
	// A second Ctrl-C ends the waiting.
	again, unhook := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer unhook()
	d.quiesce(again)
	bounded, cancel := context.WithTimeout(again, 25*time.Second)
	defer cancel()
	if err := d.server.Shutdown(bounded); err != nil {
		d.cfg.log.Warn("some requests were cut off", "error", err)
	}
	stopWork()
	wg.Wait()
	if d.followed != nil {
		return nil // what is only counted goes on being counted
	}
	return d.control.RemoveWaiting(bounded)
}

// quiesce deals with running tasks as --on-stop says.
func (d *daemon) quiesce(ctx context.Context) {
	n := d.control.Dispatcher().Active()
	log := d.cfg.log
	switch {
	case n == 0:
		return
	case d.cfg.onStop == "keep":
		log.Info("running tasks go on in their sandboxes; the next `muster up` takes them over, `muster down` removes them", "tasks", n)
		return
	case d.cfg.onStop == "drain":
		log.Info("waiting for running tasks; a second Ctrl-C leaves them", "tasks", n)
	default:
		log.Info("cancelling running tasks", "tasks", n)
	}
	if err := d.control.Quiesce(ctx, d.cfg.onStop == "cancel"); err != nil {
		log.Warn("stopping with tasks still running", "error", err)
	}
}

func (d *daemon) address() string { return "http://" + d.listener.Addr().String() }

func (d *daemon) isReady(ctx context.Context) error {
	if err := d.control.Ready(ctx); err != nil {
		return err
	}
	return d.db.Ping(ctx)
}

// close releases what was opened, in reverse order. Sandboxes are left alone.
func (d *daemon) close() {
	if d.keda != nil {
		_ = d.keda.listener.Close()
	}
	if err := d.closeQueue(); err != nil {
		d.cfg.log.Warn("the queue", "error", err)
	}
	if d.boxes != nil {
		_ = d.boxes.Close()
	}
	if d.images != nil {
		_ = d.images.Close()
	}
	if d.archive != nil {
		_ = d.archive.Close()
	}
	if d.db != nil {
		if err := d.db.Close(); err != nil {
			d.cfg.log.Error("close the store", "error", err)
		}
	}
	if d.listener != nil {
		_ = d.listener.Close()
	}
	if d.lock != nil {
		_ = d.lock.Release()
	}
}
