package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// save writes the index as a tarball that is an OCI layout (containerd, kind,
// podman, Muster's own image type) and has the manifest.json of docker load,
// which takes one platform: this machine's where the index has it, else the
// first.
func save(out string, tag name.Tag, index v1.ImageIndex, created time.Time) error {
	dir, err := os.MkdirTemp("", "muster-layout-")
	if err != nil {
		return fmt.Errorf("make a layout: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// A layout's own index names the images in it; containerd reads the one
	// annotation, everybody else the other.
	outer := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index, Descriptor: v1.Descriptor{Annotations: map[string]string{
		"io.containerd.image.name":          tag.Name(),
		"org.opencontainers.image.ref.name": tag.TagStr(),
	}}})
	if _, err := layout.Write(dir, outer); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	manifest, err := dockerManifest(tag, index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o750); err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	return pack(out, dir, created)
}

// dockerManifest describes one platform's image as docker save does, with
// paths into the layout's blobs.
func dockerManifest(tag name.Tag, index v1.ImageIndex) ([]byte, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	if len(m.Manifests) == 0 {
		return nil, fmt.Errorf("the index has no image")
	}
	one := m.Manifests[0]
	here := match.Platforms(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if i := slices.IndexFunc(m.Manifests, here); i >= 0 {
		one = m.Manifests[i]
	}
	img, err := index.Image(one.Digest)
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	im, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	d := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blob(im.Config.Digest), RepoTags: []string{tag.RepositoryStr() + ":" + tag.TagStr()}}
	if tag.RegistryStr() != name.DefaultRegistry {
		d.RepoTags = []string{tag.Name()}
	}
	for _, l := range im.Layers {
		d.Layers = append(d.Layers, blob(l.Digest))
	}
	return json.Marshal([]any{d})
}

// pack writes the files below dir in a fixed order, all with the same time,
// and replaces out only with a whole tarball.
func pack(out, dir string, created time.Time) error {
	tmp, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	defer func() { _ = tmp.Close(); _ = os.Remove(tmp.Name()) }()
	w := tar.NewWriter(tmp)
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error { // in lexical order
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(rel), Mode: 0o644, ModTime: created, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if d.IsDir() {
			h.Name, h.Mode, h.Typeflag = h.Name+"/", 0o755, tar.TypeDir
			return w.WriteHeader(h)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		h.Size = int64(len(b))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(w, bytes.NewReader(b))
		return err
	})
	if err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	if err := tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	if err := os.Rename(tmp.Name(), out); err != nil {
		return fmt.Errorf("write the tarball: %w", err)
	}
	return nil
}
