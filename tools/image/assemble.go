package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who the image runs as; the chart says the same number.
const user = 65532

// entry is a file or directory of a layer.
type entry struct {
	path    string
	mode    int64
	owner   int
	content []byte // nil: a directory
}

// base is what every platform has beside the programs.
func base() []entry {
	return []entry{
		{path: "data/", mode: 0o750, owner: user},
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, content: []byte("root:x:0:\nmuster:x:65532:\n")},
		{path: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/:/sbin/nologin\nmuster:x:65532:65532:muster:/data:/sbin/nologin\n")},
		{path: "etc/ssl/", mode: 0o755},
		{path: "etc/ssl/certs/", mode: 0o755},
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: roots()},
		{path: "tmp/", mode: 0o1777},
	}
}

// roots is the unconstrained roots as PEM.
func roots() []byte {
	var w bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			_ = pem.Encode(&w, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}) // a buffer does not fail
		}
	}
	return w.Bytes()
}

// layer packs entries, all with the same time.
func layer(entries []entry, created time.Time) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Name: e.path, Mode: e.mode, Uid: e.owner, Gid: e.owner, ModTime: created,
			Typeflag: tar.TypeReg, Size: int64(len(e.content)), Format: tar.FormatPAX,
		}
		if e.content == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.path, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack a layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompression(compression.GZip), tarball.WithCompressedCaching)
}

// annotations are what registries and scanners show of the image.
func annotations(s source) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "muster",
		"org.opencontainers.image.description": "Runs a fleet of AI coding agents and sizes it to its load",
		"org.opencontainers.image.url":         "https://muster.dev",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     s.version,
		"org.opencontainers.image.revision":    s.revision,
		"org.opencontainers.image.created":     s.created.Format(time.RFC3339),
	}
}

// assemble makes an index with an image for each platform.
func assemble(s source, builds []built) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range builds {
		img, err := image(s, b)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &b.platform}})
	}
	return mutate.Annotations(index, annotations(s)).(v1.ImageIndex), nil
}

// image is that of one platform: a layer of what all share, and one for each
// program.
func image(s source, b built) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: b.platform.Architecture, Variant: b.platform.Variant, OS: b.platform.OS,
		Created: v1.Time{Time: s.created},
		RootFS:  v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User:         strconv.Itoa(user) + ":" + strconv.Itoa(user),
			Entrypoint:   []string{"/muster"},
			Cmd:          []string{"serve"},
			WorkingDir:   "/data",
			Env:          []string{"PATH=/", "MUSTER_HOME=/data", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
			Labels:       annotations(s),
			ExposedPorts: map[string]struct{}{"7433/tcp": {}, "7443/tcp": {}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("configure the image: %w", err)
	}
	contents := [][]entry{base()}
	for _, p := range programs {
		content, err := os.ReadFile(b.paths[p.name])
		if err != nil {
			return nil, fmt.Errorf("read what was built: %w", err)
		}
		contents = append(contents, []entry{{path: p.name, mode: 0o755, content: content}})
	}
	for i, entries := range contents {
		l, err := layer(entries, s.created)
		if err != nil {
			return nil, err
		}
		by := "certificates and user"
		if i > 0 {
			by = programs[i-1].name
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer, History: v1.History{Created: v1.Time{Time: s.created}, CreatedBy: by}}); err != nil {
			return nil, fmt.Errorf("add the layer of %s: %w", by, err)
		}
	}
	return mutate.Annotations(img, annotations(s)).(v1.Image), nil
}
