package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Prune removes layers that are not among keep (the Lower directories of
// images in use) and were not resolved within the last unused, by this
// process; records of references that lost a layer go too. It returns how
// many layers and about how many bytes it freed.
func (c *Cache) Prune(ctx context.Context, keep []string, unused time.Duration) (layers int, bytes int64, err error) {
	found, err := os.ReadDir(filepath.Join(c.dir, "l"))
	if err != nil {
		return 0, 0, fmt.Errorf("prune images: %w", err)
	}
	var failed []error
	for _, e := range found {
		if ctx.Err() != nil {
			return layers, bytes, ctx.Err()
		}
		if slices.Contains(keep, c.layerDir(e.Name())) {
			continue
		}
		n, gone, err := c.pruneLayer(ctx, e.Name(), unused)
		if err != nil {
			failed = append(failed, err)
		}
		if gone {
			layers++
			bytes += n
		}
	}
	if layers > 0 {
		c.pruneRecords()
	}
	return layers, bytes, errors.Join(failed...)
}

func (c *Cache) pruneLayer(ctx context.Context, name string, unused time.Duration) (int64, bool, error) {
	unlock, err := lockFile(ctx, c.lockPath(name))
	if err != nil {
		return 0, false, err
	}
	defer unlock()
	note, _ := c.note(name)
	s, err := c.scratch()
	if err != nil {
		return 0, false, err
	}
	defer s.close() // removes what was moved into it
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.used[name]; ok && c.o.Now().Sub(at) < unused {
		return 0, false, nil
	}
	if err := os.Rename(c.layerDir(name), filepath.Join(s.path, "gone")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return 0, false, err
	}
	_ = os.Remove(c.notePath(name))
	delete(c.used, name)
	for ref, r := range c.known {
		if slices.ContainsFunc(r.Layers, func(id string) bool { return c.form.name(id) == name }) {
			delete(c.known, ref)
		}
	}
	return note.Bytes, true, nil
}

// pruneRecords removes records that cannot be assembled any more.
func (c *Cache) pruneRecords() {
	dir := filepath.Join(c.dir, "r")
	found, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range found {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if r, ok := readRecord(filepath.Join(dir, e.Name())); ok && !c.whole(r) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func (c *Cache) whole(r record) bool {
	for _, id := range r.Layers {
		if !c.have(c.form.name(id), id) {
			return false
		}
	}
	return true
}
