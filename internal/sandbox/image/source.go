package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"muster.dev/muster/internal/fleet"
)

// source is a classified reference.
type source struct {
	path     string // absolute; empty for a registry
	pick     string // after "#": which image of several
	rootfs   bool
	layout   bool
	registry string // the reference
	fixed    bool   // by digest
}

// opened is an image that can be read.
type opened struct {
	v1.Image
	digest string
	close  func()
}

// maxConfig bounds configurations and manifests, which are held in memory.
const maxConfig = 8 << 20

func classify(ref string) (source, error) {
	if ref == "" {
		return source{}, invalid("the reference is empty")
	}
	if !strings.HasPrefix(ref, "/") {
		if strings.HasPrefix(ref, ".") || strings.HasPrefix(ref, "~") {
			return source{}, invalid("a path must be absolute; write it from / on")
		}
		return source{registry: ref, fixed: strings.Contains(ref, "@sha256:")}, nil
	}
	s := source{path: ref}
	st, err := os.Stat(ref)
	if err != nil {
		if i := strings.LastIndexByte(ref, '#'); i > 0 {
			s.path, s.pick = ref[:i], ref[i+1:]
			st, err = os.Stat(s.path)
		}
	}
	if err != nil {
		return source{}, fmt.Errorf("%w; give the absolute path of an unpacked root file system, of an OCI layout directory or of a docker-save or OCI tarball, or a registry reference such as debian:12", err)
	}
	s.path = filepath.Clean(s.path)
	switch {
	case st.Mode().IsRegular():
	case !st.IsDir():
		return source{}, fmt.Errorf("%s is neither a directory nor a tarball", s.path)
	default:
		_, err := os.Stat(filepath.Join(s.path, "oci-layout"))
		s.layout = err == nil
		s.rootfs = err != nil
	}
	return s, nil
}

// fingerprint changes when a local file does; empty for a registry.
func (s source) fingerprint() string {
	file := s.path
	switch {
	case file == "" || s.rootfs:
		return ""
	case s.layout:
		file = filepath.Join(file, "index.json")
	}
	st, err := os.Stat(file)
	if err != nil {
		return "gone"
	}
	return fmt.Sprintf("%s %d %d", file, st.Size(), st.ModTime().UnixNano())
}

// rootfs takes an unpacked directory as it is.
func rootfs(dir string) (Image, error) {
	clean := filepath.Clean(dir)
	if clean == "/" {
		return Image{}, invalid(`the root directory of the host would show all its files; use the image "host"`)
	}
	if strings.ContainsAny(clean, ":,\\\"\n") {
		return Image{}, invalid(`the path has one of : , \ " and cannot be mounted; rename it`)
	}
	for _, sign := range []string{"usr", "bin", "sbin", "lib", "etc"} {
		if _, err := os.Lstat(filepath.Join(clean, sign)); err == nil {
			return Image{Ref: dir, Digest: "dir:" + clean, Lower: []string{clean}}, nil
		}
	}
	return Image{}, fmt.Errorf("%s has neither usr, bin, sbin, lib nor etc: it is not an unpacked root file system, and without a file oci-layout no OCI layout", clean)
}

func (c *Cache) open(ctx context.Context, s source) (*opened, error) {
	var o *opened
	var err error
	switch {
	case s.layout:
		o, err = openLayout(s.path, s.pick)
	case s.path != "":
		o, err = c.openTarball(ctx, s)
	default:
		o, err = c.openRegistry(ctx, s.registry)
	}
	if err != nil {
		return nil, err
	}
	cf, err := o.ConfigFile()
	if err == nil {
		err = checkPlatform(cf)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func checkPlatform(cf *v1.ConfigFile) error {
	if cf.OS != "" && cf.OS != "linux" || cf.Architecture != "" && cf.Architecture != runtime.GOARCH {
		return fmt.Errorf("it is for %s/%s, this machine is linux/%s; name an image of that platform", cf.OS, cf.Architecture, runtime.GOARCH)
	}
	return nil
}

// here is the platform images are picked for.
func here() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func invalid(text string) error { return fmt.Errorf("%s (%w)", text, fleet.ErrInvalid) }
