package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

func gzipped(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	if err := os.WriteFile(file+".gz", out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file + ".gz"
}

// serve runs a registry on loopback and pushes img as test/img:1.
func serve(t *testing.T, img v1.Image) (ref string, blobs *atomic.Int64, s *httptest.Server) {
	t.Helper()
	blobs = &atomic.Int64{}
	h := registry.New(registry.Logger(quiet()))
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	ref = strings.TrimPrefix(s.URL, "http://") + "/test/img:1"
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	if err := remote.Write(r, img, remote.WithTransport(tr)); err != nil {
		t.Fatal(err)
	}
	return ref, blobs, s
}

func direct(t *testing.T) http.RoundTripper {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// merged looks a path up through the layers as overlayfs would.
func merged(t *testing.T, img Image, path string) string {
	t.Helper()
	for _, l := range img.Lower {
		p := filepath.Join(l, path)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err == nil {
			if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
				return ""
			}
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		if v := make([]byte, 1); path != filepath.Base(path) {
			attr := opaqueTrusted
			if img.UserXattr {
				attr = opaqueUser
			}
			if n, err := unix.Getxattr(filepath.Dir(p), attr, v); err == nil && n == 1 && v[0] == 'y' {
				return ""
			}
		}
	}
	return ""
}

func TestEverySourceGivesTheSame(t *testing.T) {
	img := base(t)
	saved, lay := writeSaved(t, img), writeLayout(t, img)
	ref, _, _ := serve(t, img)
	for kind, ref := range map[string]string{
		"docker-save": saved, "docker-save gzipped": gzipped(t, saved),
		"layout": lay, "layout tarball": tarDir(t, lay), "registry": ref,
	} {
		t.Run(kind, func(t *testing.T) {
			c := open(t, t.TempDir(), Options{UIDOffset: 100000, Transport: direct(t)})
			got, err := c.Resolve(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Lower) != 2 || got.User != "app" || got.WorkingDir != "/srv" || len(got.Env) != 2 || got.Digest == "" {
				t.Errorf("resolved %+v", got)
			}
			for path, want := range map[string]string{
				"usr/bin/tool": "usr/bin/tool", "usr/bin/more": "usr/bin/more", "gone.txt": "", "old/gone": "", "old/new": "old/new",
			} {
				if s := merged(t, got, path); s != want {
					t.Errorf("%s holds %q, want %q", path, s, want)
				}
			}
			again, err := c.Resolve(t.Context(), ref)
			if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
				t.Errorf("again: %+v, %v", again, err)
			}
			if left, _ := os.ReadDir(filepath.Join(c.dir, "t")); len(left) != 0 {
				t.Errorf("scratch left behind: %v", left)
			}
		})
	}
}

func TestConcurrentResolvesFetchOnce(t *testing.T) {
	ref, blobs, _ := serve(t, base(t))
	dir := t.TempDir()
	// Two caches on one directory stand for two processes.
	caches := []*Cache{open(t, dir, Options{Transport: direct(t)}), open(t, dir, Options{Transport: direct(t)})}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := caches[i%2].Resolve(t.Context(), ref); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Two layers once, and the configuration once for each process.
	if n := blobs.Load(); n > 4 {
		t.Errorf("%d blobs fetched, want at most 4", n)
	}
}

func TestCacheSurvivesRestartAndRegistry(t *testing.T) {
	img := base(t)
	ref, blobs, s := serve(t, img)
	dir := t.TempDir()
	c := open(t, dir, Options{Transport: direct(t)})
	first, err := c.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	// What a killed process leaves.
	half := filepath.Join(dir, "t", "half")
	if err := os.MkdirAll(filepath.Join(half, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Close()
	before := blobs.Load()
	c = open(t, dir, Options{Transport: direct(t), Now: func() time.Time { return time.Now().Add(time.Hour) }})
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half-unpacked layer is still there: %v", err)
	}
	again, err := c.Resolve(t.Context(), ref)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(first) || blobs.Load() != before {
		t.Errorf("with the registry gone: %+v, %v", again, err)
	}
	_, err = c.Resolve(t.Context(), strings.Replace(ref, ":1", ":2", 1))
	wantReason(t, err, fleet.ErrUnavailable, "cannot be asked", "docker save")
}

func TestTagMovesWithTheRegistry(t *testing.T) {
	ref, _, _ := serve(t, base(t))
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	c := open(t, t.TempDir(), Options{Transport: direct(t), Now: clock})
	first, err := c.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := name.ParseReference(ref)
	if err := remote.Write(r, build(t, layer(t, dir("usr"), file("usr/x"))), remote.WithTransport(direct(t))); err != nil {
		t.Fatal(err)
	}
	if img, err := c.Resolve(t.Context(), ref); err != nil || img.Digest != first.Digest {
		t.Errorf("within the refresh interval: %v %v", img.Digest, err)
	}
	mu.Lock()
	now = now.Add(6 * time.Minute)
	mu.Unlock()
	if img, err := c.Resolve(t.Context(), ref); err != nil || img.Digest == first.Digest {
		t.Errorf("after it: %v %v, want the new image", img.Digest, err)
	}
}

func wantReason(t *testing.T, err, kind error, texts ...string) {
	t.Helper()
	var re *fleet.ReasonError
	if !errors.As(err, &re) || re.Reason != fleet.ReasonImage {
		t.Fatalf("error %v, want a ReasonError with %s", err, fleet.ReasonImage)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("error %v, want %v", err, kind)
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q says nothing of %q", err, s)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	ref, _, s := serve(t, base(t))
	host := strings.TrimPrefix(s.URL, "http://")
	tmp := t.TempDir()
	junk := filepath.Join(tmp, "junk.tar")
	if err := os.WriteFile(junk, stream(t, file("usr/bin/x")), 0o600); err != nil {
		t.Fatal(err)
	}
	noise := filepath.Join(tmp, "noise")
	if err := os.WriteFile(noise, bytes.Repeat([]byte("noise"), 500), 0o600); err != nil {
		t.Fatal(err)
	}
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer denied.Close()
	other := build(t, layer(t, dir("usr")))
	otherLayout := func() string {
		cf, _ := other.ConfigFile()
		cf = cf.DeepCopy()
		cf.Architecture = "s390x"
		img, _ := mutate.ConfigFile(other, cf)
		return writeLayout(t, img)
	}()
	c := open(t, t.TempDir(), Options{Transport: direct(t)})
	for _, tc := range []struct {
		ref   string
		kind  error
		texts []string
	}{
		{"", fleet.ErrInvalid, []string{"empty"}},
		{"./x", fleet.ErrInvalid, []string{"absolute"}},
		{"UPPER/Case", fleet.ErrInvalid, []string{"UPPER/Case", "absolute path"}},
		{tmp + "/nothing", os.ErrNotExist, []string{"nothing", "no such file", "docker-save"}},
		{tmp, nil, []string{"not an unpacked root"}},
		{"/", fleet.ErrInvalid, []string{`"host"`}},
		{junk, nil, []string{"unpacked first"}},
		{noise, nil, []string{"tarball"}},
		{ref + "x", fleet.ErrNotFound, []string{"has no", "check name and tag"}},
		{host + "/none:1", fleet.ErrNotFound, []string{"check name and tag"}},
		{strings.TrimPrefix(denied.URL, "http://") + "/x:1", nil, []string{"docker login"}},
		{otherLayout, nil, []string{"s390x", "linux/"}},
	} {
		_, err := c.Resolve(t.Context(), tc.ref)
		wantReason(t, err, tc.kind, append(tc.texts, fmt.Sprintf("%q", tc.ref))...)
	}
}

type trips func(*http.Request) (*http.Response, error)

func (f trips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPlainHTTPOnlyOnLoopback(t *testing.T) {
	tr := trips(func(r *http.Request) (*http.Response, error) {
		if r.URL.Scheme == "http" {
			t.Errorf("asked %s in the clear", r.URL)
		}
		return nil, io.ErrUnexpectedEOF
	})
	c := open(t, t.TempDir(), Options{Transport: tr})
	_, err := c.Resolve(t.Context(), "10.1.2.3:5000/x:1")
	wantReason(t, err, nil, "10.1.2.3:5000")
}

func TestDamagedLayerIsRefused(t *testing.T) {
	lay := writeLayout(t, base(t))
	// Another layer in the place of the last: digests of blobs are not what
	// protects a layout.
	img := base(t)
	layers, _ := img.Layers()
	d, _ := layers[1].Digest()
	rc, _ := layer(t, dir("usr"), file("usr/evil")).Compressed()
	b, _ := io.ReadAll(rc)
	if err := os.WriteFile(filepath.Join(lay, "blobs", "sha256", d.Hex), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, t.TempDir(), Options{})
	_, err := c.Resolve(t.Context(), lay)
	wantReason(t, err, nil, "damaged or tampered")
	if left, _ := os.ReadDir(filepath.Join(c.dir, "l")); len(left) > 1 {
		t.Errorf("layers %v, want at most the good one", left)
	}
}

func TestBounds(t *testing.T) {
	lay := writeLayout(t, base(t))
	_, err := open(t, t.TempDir(), Options{MaxBytes: 20}).Resolve(t.Context(), lay)
	wantReason(t, err, nil, "bound of one image")
	_, err = open(t, t.TempDir(), Options{MaxEntries: 5}).Resolve(t.Context(), lay)
	wantReason(t, err, nil, "more than 5 files")
}

func TestPrune(t *testing.T) {
	a, b := writeLayout(t, base(t)), writeLayout(t, build(t, layer(t, dir("usr"), file("usr/other"))))
	c := open(t, t.TempDir(), Options{})
	imgA, err := c.Resolve(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resolve(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n, _, err := c.Prune(t.Context(), nil, time.Hour); n != 0 || err != nil {
		t.Errorf("pruned %d layers just resolved: %v", n, err)
	}
	n, bytes, err := c.Prune(t.Context(), imgA.Lower, 0)
	if n != 1 || bytes == 0 || err != nil {
		t.Errorf("pruned %d layers, %d bytes, %v; want the one of the other image", n, bytes, err)
	}
	if _, err := os.Stat(imgA.Lower[0]); err != nil {
		t.Error(err)
	}
	if img, err := c.Resolve(t.Context(), b); err != nil || merged(t, img, "usr/other") == "" {
		t.Errorf("resolve after prune: %v", err)
	}
}

func TestUnpackedDirectoryIsUsedAsItIs(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "usr"), 0o755); err != nil {
		t.Fatal(err)
	}
	img, err := open(t, t.TempDir(), Options{}).Resolve(t.Context(), root)
	if err != nil || len(img.Lower) != 1 || img.Lower[0] != root || img.Shifted {
		t.Errorf("%+v %v", img, err)
	}
}

func TestAbandonedPullGoesOn(t *testing.T) {
	ref, _, _ := serve(t, base(t))
	hold, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	inner := direct(t)
	c := open(t, t.TempDir(), Options{Transport: trips(func(r *http.Request) (*http.Response, error) {
		once.Do(func() { close(held); <-hold })
		return inner.RoundTrip(r)
	})})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-held; cancel() }()
	_, err := c.Resolve(ctx, ref)
	wantReason(t, err, context.Canceled, "not ready yet")
	close(hold)
	if _, err := c.Resolve(t.Context(), ref); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestOverlayMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting an overlay needs root")
	}
	const offset = 1_000_000_000
	su := file("usr/su")
	su.Mode = 0o4755
	own := file("usr/own")
	own.Uid, own.Gid = 1000, 1000
	far := file("usr/far")
	far.Uid = 3_000_000
	img := build(t,
		layer(t, dir("usr"), su, own, far, dir("d"), file("d/low"), dir("e"), file("e/low"), file("f"), dir("g"), file("g/low")),
		layer(t, dir("d"), file("d/.wh..wh..opq"), file("d/high"), file(".wh.f"),
			// Hidden below and made anew, in both orders.
			file(".wh.e"), dir("e"), file("e/high"), dir("g"), file("g/high"), file(".wh.g")))
	c := open(t, t.TempDir(), Options{UIDOffset: offset})
	got, err := c.Resolve(t.Context(), writeLayout(t, img))
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(got.Lower, ":")); err != nil {
		t.Skipf("this machine mounts no overlay: %v", err)
	}
	defer func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	for _, p := range []string{"d/high", "e/high", "g/high", "usr/su"} {
		if _, err := os.Stat(filepath.Join(at, p)); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"d/low", "e/low", "g/low", "f"} {
		if _, err := os.Stat(filepath.Join(at, p)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s shows through: %v", p, err)
		}
	}
	for p, want := range map[string]uint32{"usr/su": offset, "usr/own": offset + 1000, "usr/far": offset + nobody, "usr": offset, ".": offset} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(at, p), &st); err != nil || st.Uid != want {
			t.Errorf("owner of %s: %d (%v), want %d", p, st.Uid, err, want)
		}
	}
}
