package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/sync/singleflight"
)

// Options adjust a Cache; the zero value is ready to use.
type Options struct {
	// UIDOffset is added to every owner and group: container uid 0 is
	// UIDOffset on the host. Ignored (nothing is chowned) where we are not
	// root.
	UIDOffset int
	// MaxBytes and MaxEntries bound one image, unpacked. Defaults 32 GiB and
	// 2,000,000.
	MaxBytes   int64
	MaxEntries int64
	// Refresh is how long a tag is believed to mean what it meant when the
	// registry was last asked; default 5 min. A digest never changes.
	Refresh time.Duration
	// Timeout bounds fetching and unpacking one image; default 30 min.
	Timeout time.Duration
	// Keychain has the credentials; default those of docker and podman.
	Keychain authn.Keychain
	// Transport carries registry requests; default one that honours the
	// proxy variables of the control plane.
	Transport http.RoundTripper
	Now       func() time.Time
	Logger    *slog.Logger
}

// Image is a resolved reference.
type Image struct {
	Ref string
	// Digest names the content: of the manifest, of the configuration for a
	// docker-save tarball, or "dir:" and the path of an unpacked directory,
	// whose content is not looked at.
	Digest string
	// Lower are read-only directories, topmost first, as for lowerdir.
	Lower      []string
	Env        []string
	User       string
	WorkingDir string
	// Shifted says that owners were shifted by UIDOffset; false for an
	// unpacked directory, which is used as it is.
	Shifted bool
	// UserXattr says that the overlay must be mounted with userxattr.
	UserXattr bool
}

// Cache resolves references; safe for concurrent use, also by several
// processes on one directory.
type Cache struct {
	dir   string
	o     Options
	form  form
	ctx   context.Context // ends with Close: pulls outlive their callers
	stop  context.CancelFunc
	work  sync.WaitGroup
	pulls singleflight.Group // by reference
	layer singleflight.Group // by layer name

	mu     sync.Mutex
	known  map[string]record    // by reference
	used   map[string]time.Time // by layer name: last resolved
	closed bool
}

// form is what shapes an unpacked layer besides its content.
type form struct {
	offset int
	chown  bool
	opaque string // the extended attribute of an opaque directory
}

// Open opens or creates a cache in dir, which must be an absolute path, and
// discards what an earlier process left half done.
func Open(dir string, o Options) (*Cache, error) {
	if !filepath.IsAbs(dir) || strings.ContainsAny(dir, ":,\\\"\n") {
		return nil, fmt.Errorf("image cache %q: want an absolute path without any of : , \\ \" as it becomes part of mount options", dir)
	}
	if o.UIDOffset < 0 || int64(o.UIDOffset) > 1<<32-1-idRange {
		return nil, fmt.Errorf("image cache: uid offset %d is out of range", o.UIDOffset)
	}
	o = o.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open image cache: %w", err)
	}
	for _, sub := range []string{"l", "m", "r", "k", "t"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open image cache: %w", err)
		}
	}
	c := &Cache{dir: dir, o: o, known: map[string]record{}, used: map[string]time.Time{}}
	c.form = form{offset: o.UIDOffset, chown: os.Geteuid() == 0}
	if !c.form.chown {
		c.form.offset = 0
	}
	if err := c.sweep(); err != nil {
		return nil, fmt.Errorf("open image cache: %w", err)
	}
	var err error
	if c.form.opaque, err = c.probeOpaque(); err != nil {
		return nil, err
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 32 << 30
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 2_000_000
	}
	if o.Refresh <= 0 {
		o.Refresh = 5 * time.Minute
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Minute
	}
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Close ends pulls that are under way and waits for them. The layers stay.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.work.Wait()
	return nil
}

// Resolve returns the directories of ref, fetching and unpacking what is
// missing. Concurrent calls for one reference share the work, which goes on
// when ctx ends, so that the next call finds it further on. Errors are
// fleet.ReasonError with ReasonImage; they wrap fleet.ErrUnavailable where
// trying again may help and fleet.ErrFull where the disk is full.
func (c *Cache) Resolve(ctx context.Context, ref string) (Image, error) {
	if img, ok := c.fresh(ref); ok {
		return img, nil
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Image{}, c.explain(ref, errors.New("the image cache is closed"))
	}
	c.work.Add(1)
	c.mu.Unlock()
	done := c.pulls.DoChan(ref, func() (any, error) {
		pull, cancel := context.WithTimeout(c.ctx, c.o.Timeout)
		defer cancel()
		return c.pull(pull, ref)
	})
	select {
	case r := <-done:
		c.work.Done()
		if r.Err != nil {
			return Image{}, c.explain(ref, r.Err)
		}
		return r.Val.(Image), nil
	case <-ctx.Done():
		go func() {
			defer c.work.Done()
			<-done
		}()
		return Image{}, c.explain(ref, fmt.Errorf("not ready yet: %w", ctx.Err()))
	}
}

// fresh answers from memory: the warm path of a fleet's thousandth sandbox.
func (c *Cache) fresh(ref string) (Image, bool) {
	c.mu.Lock()
	r, ok := c.known[ref]
	c.mu.Unlock()
	if !ok || !c.current(ref, r) {
		return Image{}, false
	}
	img, ok := c.assemble(r)
	return img, ok
}

// pull resolves a reference that memory does not answer.
func (c *Cache) pull(ctx context.Context, ref string) (Image, error) {
	kind, err := classify(ref)
	if err != nil {
		return Image{}, err
	}
	if kind.rootfs {
		return rootfs(ref)
	}
	old, have := c.load(ref)
	if have && c.current(ref, old) {
		if img, ok := c.assemble(old); ok {
			c.remember(ref, old)
			return img, nil
		}
	}
	img, err := c.fetch(ctx, kind, ref)
	if err == nil || !have || kind.path != "" || ctx.Err() != nil {
		return img, err
	}
	// The registry cannot be asked: what the tag meant last is better than
	// no sandbox.
	if last, ok := c.assemble(old); ok {
		c.o.Logger.Warn("registry cannot be asked; using the image as last resolved", "image", ref, "digest", old.Digest, "error", err)
		old.At = c.o.Now()
		c.remember(ref, old)
		return last, nil
	}
	return Image{}, err
}

func (c *Cache) fetch(ctx context.Context, kind source, ref string) (Image, error) {
	fingerprint := kind.fingerprint()
	img, err := c.open(ctx, kind)
	if err != nil {
		return Image{}, err
	}
	defer img.close()
	r, err := c.unpackImage(ctx, img)
	if err != nil {
		return Image{}, err
	}
	r.Ref, r.At, r.Fingerprint, r.Fixed = ref, c.o.Now(), fingerprint, kind.fixed
	if err := c.store(r); err != nil {
		return Image{}, err
	}
	c.remember(ref, r)
	out, ok := c.assemble(r)
	if !ok {
		return Image{}, errors.New("its layers vanished from the cache; try again")
	}
	return out, nil
}
