package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

//go:embed default-fleet.yaml
var defaultFleet []byte

// upOptions are the flags of `muster up`.
type upOptions struct {
	fleetFile string
	dataDir   string
	listen    string
	runner    string
	runtimes  string // directory with further OCI runtimes
	logLevel  string
	onStop    string
	parallel  int
}

func newUpCommand() *cobra.Command {
	var o upOptions
	c := &cobra.Command{
		Use:   "up",
		Short: "Run a fleet on this machine: queue, sandboxes, API",
		Long: `Run a whole fleet on this machine: an embedded queue and store (SQLite), local
sandboxes through an OCI runtime, and the HTTP API on loopback. Nothing else is
needed.

Everything it keeps is in the data directory; a second start goes on from
there. On Ctrl-C waiting sandboxes are removed; tasks that run go on in their
sandboxes and are taken over by the next start (see --on-stop). ` + "`muster down`" + `
ends those, too.`,
		Example: `  muster up
  muster up --fleet fleet.yaml --listen 127.0.0.1:7500
  muster up --on-stop cancel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runUp(ctx, o, cmd)
		},
	}
	f := c.Flags()
	f.StringVar(&o.fleetFile, "fleet", "", "the fleet's YAML `file`; default: the one in force in the data directory, else a small built-in one")
	f.StringVar(&o.dataDir, "data", "", "data `directory`; default $MUSTER_HOME, /var/lib/muster for root, else ~/.local/state/muster")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7433", "`address` of the HTTP API; port 0 picks a free one")
	f.StringVar(&o.runner, "runner", "", "the muster-runner `program`; default: beside muster, else on PATH")
	f.StringVar(&o.runtimes, "runtimes", "", "`directory` with runc, crun or runsc, searched before PATH")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.onStop, "on-stop", "keep", "running tasks when muster stops: keep, drain (wait for them) or cancel")
	f.IntVar(&o.parallel, "parallel-starts", 0, "sandboxes started at once; 0: from the number of cores")
	return c
}

func runUp(ctx context.Context, o upOptions, cmd *cobra.Command) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return usageError("--log-level %q is unknown; want debug, info, warn or error", o.logLevel)
	}
	switch o.onStop {
	case "keep", "drain", "cancel":
	default:
		return usageError("--on-stop %q is unknown; want keep, drain or cancel", o.onStop)
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	dir, err := prepareDataDir(o.dataDir)
	if err != nil {
		return err
	}
	loaded, err := loadFleet(o.fleetFile, dir)
	if err != nil {
		return err
	}
	d, err := openDaemon(ctx, daemonConfig{
		dir: dir, fleet: loaded.fleet, written: loaded.written, files: loaded.files, listen: o.listen, store: storeChoice{file: filepath.Join(dir, "muster.db")}, runner: o.runner, runtimes: o.runtimes,
		onStop: o.onStop, parallel: o.parallel, log: log,
	})
	if err != nil {
		return err
	}
	defer d.close()
	printBanner(cmd.ErrOrStderr(), d, loaded.from)
	return d.run(ctx)
}

// checkMounts refuses sources that this machine does not have: no sandbox of
// their template could ever start.
func checkMounts(f *v1alpha1.Fleet) error {
	for i, t := range f.Spec.Templates {
		for k, m := range t.Mounts {
			if _, err := os.Stat(m.Source); err != nil {
				return &fleet.FieldError{
					Field: fmt.Sprintf("spec.templates[%d].mounts[%d].source", i, k),
					Wrong: fmt.Sprintf("%s cannot be read on this machine: %v", m.Source, errors.Unwrap(err)),
					Right: "a file or directory that is there",
				}
			}
		}
	}
	return nil
}

// loadedFleet is a fleet of this machine, and where it came from.
type loadedFleet struct {
	fleet   *v1alpha1.Fleet
	from    string         // for people
	written fleet.Revision // as it is on record
	files   fleetFiles
}

// loadFleet reads the fleet from file, else from the data directory, else the
// built-in one, and says where it came from. The fleet in force is kept in
// the data directory.
func loadFleet(file, dir string) (loadedFleet, error) {
	out := loadedFleet{from: "built in; see `muster up --help` for your own", files: fleetFiles{given: file, kept: filepath.Join(dir, "fleet.yaml")}}
	raw, note := defaultFleet, "built in"
	switch {
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return out, fmt.Errorf("read the fleet: %w", err)
		}
		raw, out.from, note = b, file, file
	default:
		b, err := os.ReadFile(out.files.kept)
		if err == nil {
			raw, out.from, note = b, out.files.kept, ""
		} else if !errors.Is(err, os.ErrNotExist) {
			return out, fmt.Errorf("read the fleet: %w", err)
		}
	}
	f, err := v1alpha1.ParseFleet(raw)
	if err != nil {
		return out, fmt.Errorf("fleet %s: %w", out.from, err)
	}
	if err := f.CheckLocal(); err != nil {
		return out, fmt.Errorf("fleet %s: %w", out.from, err)
	}
	if err := checkMounts(f); err != nil {
		return out, withHint(fmt.Errorf("fleet %s: %w", out.from, err), "every sandbox of the template would fail to start; create it, or take the mount out")
	}
	if file != "" {
		if err := writePrivate(out.files.kept, raw); err != nil {
			return out, fmt.Errorf("keep the fleet: %w", err)
		}
	}
	out.fleet = f
	out.written = fleet.Revision{Author: localAuthor(), Source: fleet.FromFile, Note: note}
	out.written.Spec, err = v1alpha1.Written(raw)
	return out, err
}
