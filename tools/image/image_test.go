package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

var src = source{version: "v1.2.3", revision: strings.Repeat("ab", 20), created: time.Unix(1700000000, 0).UTC()}

// described is builds of two platforms, of programs that are not run.
func described(t *testing.T) []built {
	t.Helper()
	var all []built
	for _, arch := range []string{"amd64", "arm64"} {
		b := built{platform: v1.Platform{OS: "linux", Architecture: arch}, paths: map[string]string{}}
		for _, p := range programs {
			at := filepath.Join(t.TempDir(), p.name)
			if err := os.WriteFile(at, []byte(p.name+" for "+arch), 0o600); err != nil {
				t.Fatal(err)
			}
			b.paths[p.name] = at
		}
		all = append(all, b)
	}
	return all
}

func assembled(t *testing.T) v1.ImageIndex {
	t.Helper()
	index, err := assemble(src, described(t))
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func of(t *testing.T, index v1.ImageIndex, arch string) v1.Image {
	t.Helper()
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		if d.Platform.OS == "linux" && d.Platform.Architecture == arch {
			img, err := index.Image(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return img
		}
	}
	t.Fatalf("no image for %s", arch)
	return nil
}

func TestConfig(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		c, err := of(t, assembled(t), arch).ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if c.Config.User != "65532:65532" || c.Config.Entrypoint[0] != "/muster" || c.Architecture != arch {
			t.Errorf("%+v", c)
		}
		if !c.Created.Equal(src.created) || c.Config.Labels["org.opencontainers.image.revision"] != src.revision {
			t.Errorf("created %v, labels %v", c.Created, c.Config.Labels)
		}
		if len(c.History) != len(c.RootFS.DiffIDs) {
			t.Errorf("%d layers with %d entries of history", len(c.RootFS.DiffIDs), len(c.History))
		}
	}
}

// TestContents: nothing is in the image but what must be, nothing of it can be
// written by its user but two directories, and there is no shell.
func TestContents(t *testing.T) {
	rc := mutate.Extract(of(t, assembled(t), "arm64"))
	defer func() { _ = rc.Close() }()
	var files []string
	r := tar.NewReader(rc)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			files = append(files, h.Name)
		}
		writable := h.Uid == user || h.Mode&0o002 != 0
		if writable != slices.Contains([]string{"data/", "tmp/", "data", "tmp"}, h.Name) || h.Mode&0o6000 != 0 {
			t.Errorf("%s: owner %d, mode %o", h.Name, h.Uid, h.Mode)
		}
		if !h.ModTime.Equal(src.created) {
			t.Errorf("%s is of %v", h.Name, h.ModTime)
		}
		if h.Name == "muster" {
			b, _ := io.ReadAll(r)
			if string(b) != "muster for arm64" {
				t.Errorf("the program is %q", b)
			}
		}
	}
	slices.Sort(files)
	want := "etc/group etc/passwd etc/ssl/certs/ca-certificates.crt muster muster-runner"
	if got := strings.Join(files, " "); got != want {
		t.Errorf("files: %s\nwant   %s", got, want)
	}
}

func TestCertificates(t *testing.T) {
	rest, n := roots(), 0
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil || !c.IsCA {
			t.Fatalf("%v: %v", c, err)
		}
		n++
	}
	if n < 80 {
		t.Errorf("only %d roots", n)
	}
}

// TestSameSourceSameImage: down to the bytes of the tarball.
func TestSameSourceSameImage(t *testing.T) {
	tag, err := name.NewTag("muster:test")
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for range 2 {
		out := filepath.Join(t.TempDir(), "image.tar")
		if err := save(out, tag, assembled(t), src.created); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	if !bytes.Equal(all[0], all[1]) {
		t.Error("two runs gave two tarballs")
	}
}

// TestTarball is read as docker load does, and as what reads OCI layouts does.
func TestTarball(t *testing.T) {
	tag, err := name.NewTag("registry.example/team/muster:v1")
	if err != nil {
		t.Fatal(err)
	}
	index := assembled(t)
	out := filepath.Join(t.TempDir(), "deep", "image.tar")
	if err := save(out, tag, index, src.created); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil || c.Architecture != runtime.GOARCH {
		t.Errorf("docker load gets %+v, %v", c, err)
	}
	dir := t.TempDir()
	unpack(t, out, dir)
	l, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Annotations["io.containerd.image.name"] != tag.Name() {
		t.Fatalf("%+v, %v", m, err)
	}
	want, err := index.Digest()
	if err != nil || m.Manifests[0].Digest != want {
		t.Errorf("the layout has %v, want %v (%v)", m.Manifests[0].Digest, want, err)
	}
}

func TestPush(t *testing.T) {
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(srv.URL, "http://") + "/team/muster:v1")
	if err != nil {
		t.Fatal(err)
	}
	index := assembled(t)
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(t.Context(), ref, index, digest); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "arm64"}))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := got.Digest()
	b, _ := of(t, index, "arm64").Digest()
	if a != b {
		t.Errorf("pulled %v, pushed %v", a, b)
	}
}

func TestBadFlags(t *testing.T) {
	for want, o := range map[string]options{
		"-push":             {root: "../..", tag: "muster:dev", push: "Not A Name"},
		"-tag":              {root: "../..", tag: "a b"},
		"-platforms":        {root: "../..", tag: "muster:dev", platforms: "windows/amd64"},
		"SOURCE_DATE_EPOCH": {root: "../..", tag: "muster:dev"},
	} {
		if want == "SOURCE_DATE_EPOCH" {
			t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
		}
		if err := run(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want it to name %s", err, want)
		}
		_ = os.Unsetenv("SOURCE_DATE_EPOCH")
	}
}

// TestTheProgramsRun builds what is really shipped for this machine, and runs
// it with nothing around it but the image, as its user.
func TestTheProgramsRun(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds both programs")
	}
	s, err := describe(t.Context(), "../..")
	if err != nil {
		t.Fatal(err)
	}
	b, err := build(t.Context(), "../..", t.TempDir(), "linux/"+runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	index, err := assemble(s, []built{b})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rc := mutate.Extract(of(t, index, runtime.GOARCH))
	defer func() { _ = rc.Close() }()
	extract(t, rc, dir)
	c := exec.CommandContext(t.Context(), "/muster", "version", "--client")
	if os.Geteuid() == 0 {
		chown(t, dir)
		c.Dir, c.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: user, Gid: user}}
	} else {
		t.Log("not root: run from its directory, without chroot")
		c.Path = filepath.Join(dir, c.Path)
	}
	c.Env = []string{"PATH=/", "MUSTER_HOME=/data"}
	out, err := c.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "muster ") {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	size := int64(0)
	for _, p := range programs {
		st, err := os.Stat(b.paths[p.name])
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	t.Logf("programs: %d MiB", size>>20)
}

// chown makes a temporary directory reachable for the image's user.
func chown(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // a temporary directory of this test
			t.Fatal(err)
		}
	}
}

func unpack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	extract(t, f, dir)
}

func extract(t *testing.T, from io.Reader, dir string) {
	t.Helper()
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(at, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil { // the top layer comes first
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(at, b, h.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
