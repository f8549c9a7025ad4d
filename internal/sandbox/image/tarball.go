package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// contents is what a look through the headers of a tarball finds.
type contents struct {
	sizes    map[string]int64
	manifest tarball.Manifest // nil: not of docker save
	layout   bool
}

const maxTarballEntries = 100_000

// openTarball opens what `docker save`, `podman save`, `skopeo copy` and
// `crane pull` write. A manifest.json makes it docker-save's.
func (c *Cache) openTarball(ctx context.Context, s source) (*opened, error) {
	found, err := look(ctx, s.path)
	if err != nil {
		return nil, fmt.Errorf("read the tarball: %w; it is cut off or none: make it again (docker save -o FILE IMAGE)", err)
	}
	switch {
	case found.manifest != nil:
		return openSaved(ctx, s, found)
	case found.layout:
		return c.openLayoutTarball(ctx, s)
	}
	return nil, errors.New("the tarball has neither manifest.json (docker save) nor oci-layout; a tarball of a root file system must be unpacked first: give the path of the directory")
}

func openSaved(ctx context.Context, s source, found contents) (*opened, error) {
	var tag *name.Tag
	if s.pick != "" {
		t, err := name.NewTag(s.pick)
		if err != nil {
			return nil, invalid(fmt.Sprintf("%q after # is not a name: %v", s.pick, err))
		}
		tag = &t
	} else if len(found.manifest) != 1 {
		var tags []string
		for _, d := range found.manifest {
			tags = append(tags, d.RepoTags...)
		}
		return nil, fmt.Errorf("it holds %d images: %s; write #name after the path to pick one", len(found.manifest), strings.Join(tags, ", "))
	}
	for _, d := range found.manifest {
		if found.sizes[path.Clean(d.Config)] > maxConfig {
			return nil, fmt.Errorf("its configuration has more than %d bytes", maxConfig)
		}
		if len(d.Layers) > maxLayers {
			return nil, fmt.Errorf("it has %d layers, more than %d", len(d.Layers), maxLayers)
		}
	}
	img, err := tarball.Image(func() (io.ReadCloser, error) { return openPlain(ctx, s.path) }, tag)
	if err != nil {
		return nil, fmt.Errorf("read the tarball: %w", err)
	}
	// The digest of the manifest would cost compressing every layer.
	id, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("read the tarball: %w", err)
	}
	return &opened{Image: img, digest: id.String(), close: func() {}}, nil
}

var blobName = regexp.MustCompile(`^(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})$`)

// openLayoutTarball unpacks the layout, whose blobs are read out of order.
func (c *Cache) openLayoutTarball(ctx context.Context, s source) (*opened, error) {
	tmp, err := c.scratch()
	if err != nil {
		return nil, err
	}
	if err := c.spread(ctx, s.path, tmp.path); err != nil {
		tmp.close()
		return nil, fmt.Errorf("unpack the OCI tarball: %w", err)
	}
	o, err := openLayout(tmp.path, s.pick)
	if err != nil {
		tmp.close()
		return nil, err
	}
	o.close = tmp.close
	return o, nil
}

func (c *Cache) spread(ctx context.Context, file, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return err
	}
	left := c.o.MaxBytes
	return each(ctx, file, func(name string, h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg || !blobName.MatchString(name) {
			return nil
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("it is larger than %d bytes", c.o.MaxBytes)
		}
		f, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(name)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	})
}

func look(ctx context.Context, file string) (contents, error) {
	found := contents{sizes: map[string]int64{}}
	err := each(ctx, file, func(name string, h *tar.Header, r io.Reader) error {
		found.sizes[name] = h.Size
		found.layout = found.layout || name == "oci-layout"
		if name != "manifest.json" {
			return nil
		}
		var b bytes.Buffer
		if err := copyBounded(&b, r, maxConfig); err != nil {
			return fmt.Errorf("manifest.json: %w", err)
		}
		if err := json.Unmarshal(b.Bytes(), &found.manifest); err != nil {
			return fmt.Errorf("manifest.json: %w", err)
		}
		if len(found.manifest) == 0 {
			return errors.New("manifest.json lists no image")
		}
		return nil
	})
	return found, err
}

// each calls f for every entry of a tarball.
func each(ctx context.Context, file string, f func(name string, h *tar.Header, r io.Reader) error) error {
	rc, err := openPlain(ctx, file)
	if err != nil {
		return err
	}
	defer rc.Close()
	tr := tar.NewReader(rc)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n >= maxTarballEntries {
			return fmt.Errorf("more than %d entries", maxTarballEntries)
		}
		if err := f(path.Clean(h.Name), h, tr); err != nil {
			return err
		}
	}
}

type plain struct {
	io.Reader
	ctx context.Context
	f   *os.File
}

func (p *plain) Close() error { return p.f.Close() }

func (p *plain) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.Reader.Read(b)
}

// openPlain opens a file and takes gzip off.
func openPlain(ctx context.Context, file string) (io.ReadCloser, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 2)
	n, _ := f.ReadAt(head, 0)
	if n < 2 || !slices.Equal(head, []byte{0x1f, 0x8b}) {
		return &seekable{plain{Reader: f, ctx: ctx, f: f}}, nil
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &plain{Reader: z, ctx: ctx, f: f}, nil
}

// seekable lets archive/tar skip over layers instead of reading them.
type seekable struct{ plain }

func (s *seekable) Seek(offset int64, whence int) (int64, error) { return s.f.Seek(offset, whence) }
