package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// nameNotes are the annotations under which tools keep an image's name.
var nameNotes = []string{"org.opencontainers.image.ref.name", "io.containerd.image.name"}

// candidate is one image of a layout.
type candidate struct {
	desc  v1.Descriptor
	names []string
	index v1.ImageIndex
}

// openLayout opens the one image of this platform in an OCI layout, or the
// one picked by name or digest.
func openLayout(dir, pick string) (*opened, error) {
	if err := checkSizes(dir); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("read the OCI layout: %w", err)
	}
	all, err := candidates(index, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("read the OCI layout: %w", err)
	}
	one, err := choose(all, pick)
	if err != nil {
		return nil, err
	}
	img, err := one.index.Image(one.desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", one.desc.Digest, err)
	}
	if err := verify(img, one.desc.Digest); err != nil {
		return nil, err
	}
	return &opened{Image: img, digest: one.desc.Digest.String(), close: func() {}}, nil
}

// verify checks what a layout does not: that manifest and configuration are
// what their digests say. Layers are checked as they are unpacked.
func verify(img v1.Image, want v1.Hash) error {
	raw, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", want, err)
	}
	m, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", want, err)
	}
	if m.Config.Size > maxConfig {
		return fmt.Errorf("its configuration has %d bytes, more than %d", m.Config.Size, maxConfig)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("read its configuration: %w", err)
	}
	for _, c := range []struct {
		what string
		b    []byte
		want v1.Hash
	}{{"manifest", raw, want}, {"configuration", config, m.Config.Digest}} {
		got, _, err := v1.SHA256(bytes.NewReader(c.b))
		if err != nil || got != c.want {
			return fmt.Errorf("its %s does not have the digest %s it is named by: it is damaged; make the image again", c.what, c.want)
		}
	}
	return nil
}

// checkSizes bounds what will be read into memory.
func checkSizes(dir string) error {
	for _, name := range []string{"index.json", "oci-layout"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("read the OCI layout: %w", err)
		}
		if st.Size() > maxConfig {
			return fmt.Errorf("%s has %d bytes, more than %d", name, st.Size(), maxConfig)
		}
	}
	return nil
}

// candidates lists images, those of nested indexes with the names of these.
func candidates(index v1.ImageIndex, names []string, depth int) ([]candidate, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var out []candidate
	for _, d := range m.Manifests {
		own := names
		for _, note := range nameNotes {
			if n := d.Annotations[note]; n != "" {
				own = append(slices.Clone(own), n)
			}
		}
		switch {
		case d.Size > maxConfig:
			return nil, fmt.Errorf("manifest %s has %d bytes, more than %d", d.Digest, d.Size, maxConfig)
		case d.MediaType.IsIndex() && depth < 4:
			sub, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			more, err := candidates(sub, append(slices.Clone(own), d.Digest.String()), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		case d.MediaType.IsImage() && !attestation(d):
			out = append(out, candidate{desc: d, names: own, index: index})
		}
	}
	return out, nil
}

// attestation tells build records, which look like images, apart.
func attestation(d v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

func choose(all []candidate, pick string) (candidate, error) {
	fits := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return !c.fits(pick) })
	fits = slices.CompactFunc(fits, func(a, b candidate) bool { return a.desc.Digest == b.desc.Digest })
	var have []string
	for _, c := range all {
		have = append(have, c.describe())
	}
	list := strings.Join(slices.Compact(have), ", ")
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(all) == 0:
		return candidate{}, fmt.Errorf("it holds no image")
	case len(fits) == 0 && pick != "":
		return candidate{}, fmt.Errorf("it holds no image %q for linux/%s; it holds %s", pick, here().Architecture, list)
	case len(fits) == 0:
		return candidate{}, fmt.Errorf("it holds no image for linux/%s; it holds %s", here().Architecture, list)
	}
	return candidate{}, fmt.Errorf("it holds %d images: %s; write #name (or #sha256:…) after the path to pick one", len(fits), list)
}

func (c candidate) fits(pick string) bool {
	if p := c.desc.Platform; p != nil && (p.OS != "" && p.OS != "linux" || p.Architecture != "" && p.Architecture != here().Architecture) {
		return false
	}
	return pick == "" || c.desc.Digest.String() == pick || slices.Contains(c.names, pick)
}

func (c candidate) describe() string {
	s := c.desc.Digest.String()
	if len(c.names) > 0 {
		s = c.names[0]
	}
	if p := c.desc.Platform; p != nil && p.Architecture != "" {
		s += " (" + p.OS + "/" + p.Architecture + ")"
	}
	return s
}

// copyBounded copies at most limit bytes and fails beyond.
func copyBounded(w io.Writer, r io.Reader, limit int64) error {
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return err
}
