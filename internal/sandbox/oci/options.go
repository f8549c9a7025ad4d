package oci

import (
	"context"
	"log/slog"
	"runtime"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/egress"
)

// Images finds the layers of an image; *image.Cache is one. Layers must be
// owned by the image's own ids plus [ImageUIDOffset].
type Images interface {
	Resolve(ctx context.Context, ref string) (Image, error)
}

// Options shape an adapter.
type Options struct {
	// Dir holds everything: a directory per sandbox, and caches whose names
	// begin with a dot. Made if absent. One adapter at a time may use it.
	Dir string
	// Runner is the static muster-runner program. Without it sandboxes can be
	// listed and destroyed, not created.
	Runner string
	// Bin is searched for runtimes before PATH; may be empty.
	Bin string
	// Runtimes gives the program of a runtime by path, before Bin.
	Runtimes map[fleet.Runtime]string
	// Images resolves every image but "host"; nil refuses them.
	Images Images
	// Node is recorded nowhere but in log lines.
	Node fleet.NodeID
	// Parallel bounds how many sandboxes are started at once while tasks wait
	// for them (see Hurry); 0: twice the number of processors, at least 4. At
	// other times half the processors are kept free for what runs.
	Parallel int
	// Platform is gVisor's: systrap (the default), kvm or ptrace.
	Platform string
	// Proxy adjusts the proxies of mode proxy.
	Proxy egress.Options
	// Logger may be nil.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Parallel <= 0 {
		o.Parallel = max(4, 2*runtime.NumCPU())
	}
	if o.Platform == "" {
		o.Platform = "systrap"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
