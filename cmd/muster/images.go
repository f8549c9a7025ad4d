package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"muster.dev/muster/internal/sandbox/image"
	"muster.dev/muster/internal/sandbox/oci"
)

const (
	// tidyImages is how often layers nobody uses are looked for, imageIdle how
	// long one is kept after its last use: a day brings the nightly tasks back.
	tidyImages = time.Hour
	imageIdle  = 26 * time.Hour
)

func openImages(c daemonConfig) (*image.Cache, error) {
	return image.Open(filepath.Join(c.dir, "images"), image.Options{UIDOffset: oci.ImageUIDOffset(), Logger: c.log})
}

// keepImagesTidy removes image layers that are not in use, until ctx ends.
func (d *daemon) keepImagesTidy(ctx context.Context) error {
	tick := time.NewTicker(tidyImages)
	defer tick.Stop()
	begun := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// What was used before this process began is not known.
		if time.Since(begun) < imageIdle {
			continue
		}
		keep, err := d.boxes.Layers(ctx)
		if err != nil {
			d.cfg.log.Warn("image layers stay: cannot tell which are in use", "error", err)
			continue
		}
		n, bytes, err := d.images.Prune(ctx, keep, imageIdle)
		if err != nil {
			d.cfg.log.Warn("some unused image layers stay", "error", err)
		}
		if n > 0 {
			d.cfg.log.Info("unused image layers removed", "layers", n, "freed", humanize.IBytes(uint64(bytes)))
		}
	}
}
