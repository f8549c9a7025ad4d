package image

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// maxLayers is less than what overlayfs takes (500) and what fits into a page
// of mount options with a cache directory of ordinary length.
const maxLayers = 127

// budget bounds one image over all its layers.
type budget struct {
	bytes, entries atomic.Int64 // left
	max            Options
}

func newBudget(o Options) *budget {
	b := &budget{max: o}
	b.bytes.Store(o.MaxBytes)
	b.entries.Store(o.MaxEntries)
	return b
}

func (b *budget) take(bytes int64) error {
	if bytes < 0 || b.bytes.Add(-bytes) < 0 {
		return fmt.Errorf("it unpacks to more than %d MiB, the bound of one image", b.max.MaxBytes>>20)
	}
	if b.entries.Add(-1) < 0 {
		return fmt.Errorf("it has more than %d files, the bound of one image", b.max.MaxEntries)
	}
	return nil
}

var layerNames = base32.NewEncoding("0123456789abcdefghijkmnpqrstuvwx").WithPadding(base32.NoPadding)

// name is short and the same for the same content in the same form. The note
// holds the whole diff id, so that a collision would be seen.
func (f form) name(diffID string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1 %d %v %s %s", f.offset, f.chown, f.opaque, diffID))
	return layerNames.EncodeToString(sum[:])[:20]
}

func (c *Cache) unpackImage(ctx context.Context, img *opened) (record, error) {
	layers, err := img.Layers()
	if err != nil {
		return record{}, fmt.Errorf("read its list of layers: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return record{}, fmt.Errorf("read its configuration: %w", err)
	}
	ids := cf.RootFS.DiffIDs
	if len(ids) != len(layers) {
		return record{}, fmt.Errorf("it is damaged: %d layers, but %d diff ids in its configuration", len(layers), len(ids))
	}
	if len(layers) == 0 || len(layers) > maxLayers {
		return record{}, fmt.Errorf("it has %d layers; want 1 to %d (flatten it: docker export, or buildah with --squash-all)", len(layers), maxLayers)
	}
	r := record{Digest: img.digest, Env: cf.Config.Env, User: cf.Config.User, WorkingDir: cf.Config.WorkingDir}
	left := newBudget(c.o)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(3) // fetching waits for the network, unpacking for the disk
	for i, l := range layers {
		id := ids[i].String()
		r.Layers = append(r.Layers, id)
		g.Go(func() error { return c.ensure(gctx, id, l, left) })
	}
	if err := g.Wait(); err != nil {
		return record{}, err
	}
	return r, nil
}

// ensure unpacks a layer unless it is there.
func (c *Cache) ensure(ctx context.Context, id string, l v1.Layer, left *budget) error {
	name := c.form.name(id)
	done := c.layer.DoChan(name, func() (any, error) {
		c.work.Add(1) // the caller holds one too, so Close is not past it
		defer c.work.Done()
		return nil, c.ensureOnce(ctx, name, id, l, left)
	})
	select {
	case r := <-done:
		if r.Err != nil && r.Shared && ctx.Err() == nil && errors.Is(r.Err, context.Canceled) {
			return c.ensure(ctx, id, l, left) // another image's failure ended it
		}
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Cache) ensureOnce(ctx context.Context, name, id string, l v1.Layer, left *budget) error {
	c.mu.Lock()
	c.used[name] = c.o.Now()
	c.mu.Unlock()
	if c.have(name, id) {
		return nil
	}
	unlock, err := lockFile(ctx, c.lockPath(name))
	if err != nil {
		return fmt.Errorf("lock layer %s: %w", id, err)
	}
	defer unlock()
	if c.have(name, id) {
		return nil
	}
	start := c.o.Now()
	n, err := c.unpackLayer(ctx, name, id, l, left)
	if err != nil {
		return fmt.Errorf("layer %s: %w", id, err)
	}
	c.o.Logger.Info("image layer unpacked", "layer", id, "bytes", n.Bytes, "entries", n.Entries, "devices_left_out", n.Devices, "took", c.o.Now().Sub(start))
	return nil
}

func (c *Cache) have(name, id string) bool {
	n, err := c.note(name)
	if err != nil || n.DiffID != id {
		return false
	}
	_, err = os.Lstat(c.layerDir(name))
	return err == nil
}

func (c *Cache) unpackLayer(ctx context.Context, name, id string, l v1.Layer, left *budget) (layerNote, error) {
	s, err := c.scratch()
	if err != nil {
		return layerNote{}, err
	}
	defer s.close()
	rc, err := l.Uncompressed()
	if err != nil {
		return layerNote{}, fmt.Errorf("fetch: %w", err)
	}
	defer rc.Close()
	sum := sha256.New()
	body := io.TeeReader(&bound{ctx: ctx, r: rc, left: c.o.MaxBytes + 4096*c.o.MaxEntries}, sum)
	n, err := unpack(s.path, body, c.form, left)
	if err != nil {
		return layerNote{}, err
	}
	if _, err := io.Copy(io.Discard, body); err != nil { // padding counts for the digest
		return layerNote{}, fmt.Errorf("fetch: %w", err)
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != id {
		return layerNote{}, fmt.Errorf("its content has digest %s: it was damaged or tampered with on the way", got)
	}
	n.DiffID = id
	note, err := json.Marshal(n)
	if err != nil {
		return layerNote{}, err
	}
	if err := s.flush(); err != nil {
		return layerNote{}, err
	}
	if err := c.replace(c.notePath(name), note); err != nil {
		return layerNote{}, err
	}
	return n, s.commit(c.layerDir(name))
}

// bound reads until the context or the allowance ends.
type bound struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bound) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		return 0, errors.New("it is larger than the bound of one image")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// scratch is a directory of unfinished work, locked while its owner lives.
type scratch struct {
	path string
	f    *os.File
}

func (c *Cache) scratch() (*scratch, error) {
	// The lock of t/ keeps a starting process from sweeping it away between
	// the two steps.
	unlock, err := lockFile(c.ctx, filepath.Join(c.dir, "k", "scratch.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	path, err := os.MkdirTemp(c.scratchDir(), "")
	if err != nil {
		return nil, err
	}
	s := &scratch{path: path}
	if s.f, err = os.Open(path); err == nil {
		err = unix.Flock(int(s.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make a scratch directory: %w", err)
	}
	return s, nil
}

// flush writes everything to the disk, so that power loss cannot leave a
// layer that exists with files that are empty.
func (s *scratch) flush() error {
	if err := unix.Syncfs(int(s.f.Fd())); err != nil {
		return fmt.Errorf("flush the layer: %w", err)
	}
	return nil
}

// commit moves the directory to where it belongs; one without a note that is
// there already is of no use to anyone.
func (s *scratch) commit(to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(s.path, to)
}

func (s *scratch) close() {
	_ = removeTree(s.path) // nothing there after commit
	if s.f != nil {
		_ = s.f.Close()
	}
}

// sweep discards scratch directories whose owner is gone.
func (c *Cache) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	unlock, err := lockFile(ctx, filepath.Join(c.dir, "k", "scratch.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	found, err := os.ReadDir(c.scratchDir())
	if err != nil {
		return err
	}
	for _, e := range found {
		path := filepath.Join(c.scratchDir(), e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if err := removeTree(path); err != nil {
				c.o.Logger.Warn("half-unpacked layer stays", "path", path, "error", err)
			}
		}
		_ = f.Close()
	}
	return nil
}

// removeTree removes a tree whose directories may lack permissions.
func removeTree(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// lockFile takes an exclusive lock over processes, waiting until ctx ends.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	_ = f.Close()
	return nil, err
}

const (
	opaqueTrusted = "trusted.overlay.opaque"
	opaqueUser    = "user.overlay.opaque"
)

// probeOpaque finds the attribute we may set here.
func (c *Cache) probeOpaque() (string, error) {
	dir, err := os.MkdirTemp(c.dir, ".probe-")
	if err != nil {
		return "", fmt.Errorf("open image cache: %w", err)
	}
	defer os.Remove(dir)
	for _, name := range []string{opaqueTrusted, opaqueUser} {
		if unix.Setxattr(dir, name, []byte("y"), 0) == nil {
			return name, nil
		}
	}
	// Neither: tmpfs before Linux 6.6. Only images that need it will fail.
	return opaqueUser, nil
}
