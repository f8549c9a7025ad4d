package image

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// unpackHere unpacks into x/layer and returns x, so that a test can look for
// what got out.
func unpackHere(t testing.TB, b []byte, f form) (string, layerNote, error) {
	t.Helper()
	x := t.TempDir()
	in := filepath.Join(x, "layer")
	if err := os.Mkdir(in, 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := unpack(in, bytes.NewReader(b), f, newBudget(Options{MaxBytes: 1 << 20, MaxEntries: 1000}))
	return x, n, err
}

func plainForm() form { return form{opaque: opaqueUser, chown: false} }

func TestHostileEntries(t *testing.T) {
	dev := tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Devmajor: 8, Mode: 0o666}
	white := tar.Header{Typeflag: tar.TypeChar, Name: "hide", Mode: 0o666}
	attr := file("usr/x")
	attr.PAXRecords = map[string]string{
		"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "SCHILY.xattr.user.good": "1",
	}
	su := file("usr/su")
	su.Mode = 0o6755
	for name, tc := range map[string]struct {
		entries []tar.Header
		err     string // "" unpacks
		check   string // must exist in the layer
	}{
		"dots":                     {[]tar.Header{file("../out")}, "refused", ""},
		"dots inside":              {[]tar.Header{file("a/../../out")}, "refused", ""},
		"absolute name":            {[]tar.Header{file("/etc/x")}, "", "etc/x"},
		"link out, then through":   {[]tar.Header{link("a", "../.."), file("a/out")}, "", "out"},
		"absolute link, through":   {[]tar.Header{link("a", "/"), file("a/out")}, "", "out"},
		"link to proc, through":    {[]tar.Header{link("a", "/proc/self/cwd"), file("a/out")}, "", "proc/self/cwd/out"},
		"dangling link, through":   {[]tar.Header{link("var/run", "/run"), file("var/run/x")}, "", "run/x"},
		"loop of links, through":   {[]tar.Header{link("a", "b"), link("b", "a"), file("a/x")}, "too many levels", ""},
		"file through a link":      {[]tar.Header{link("a", "/etc/passwd"), file("a")}, "", "a"},
		"link replaced on the way": {[]tar.Header{dir("b"), dir("c"), link("a", "b"), file("a/x"), link("a", "c"), file("a/y")}, "", "c/y"},
		"hard link out":            {[]tar.Header{hard("a", "../../etc/passwd")}, "refused", ""},
		"hard link absolute":       {[]tar.Header{hard("a", "/etc/passwd")}, "not in this layer", ""},
		"hard link over a link":    {[]tar.Header{link("a", "/etc"), hard("b", "a/passwd")}, "not in this layer", ""},
		"hard link":                {[]tar.Header{file("a"), hard("d/b", "a")}, "", "d/b"},
		"hard link to a symlink":   {[]tar.Header{link("a", "/etc/passwd"), hard("b", "a"), file("b")}, "", "b"},
		"devices":                  {[]tar.Header{dev, white, file("usr/x")}, "", "usr/x"},
		"file as directory":        {[]tar.Header{file("a"), file("a/b")}, "not a directory", ""},
		"directory becomes file":   {[]tar.Header{dir("a"), file("a/b"), file("a")}, "", "a"},
		"whiteout of dots":         {[]tar.Header{file(".wh...")}, "whiteout", ""},
		"whiteout then child":      {[]tar.Header{file(".wh.a"), file("a/b/c")}, "", "a/b/c"},
		"own attributes":           {[]tar.Header{attr}, "", "usr/x"},
		"set-id":                   {[]tar.Header{su}, "", "usr/su"},
		"fifo":                     {[]tar.Header{{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o644}}, "", "p"},
		"root is a file":           {[]tar.Header{{Typeflag: tar.TypeSymlink, Name: "./", Linkname: "/"}}, "root of a layer", ""},
		"unreadable directory":     {[]tar.Header{{Typeflag: tar.TypeDir, Name: "a", Mode: 0}, file("a/b")}, "", "a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			x, _, err := unpackHere(t, stream(t, tc.entries...), plainForm())
			if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) || tc.err == "" && err != nil {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if tc.check != "" {
				if _, err := os.Lstat(filepath.Join(x, "layer", tc.check)); err != nil {
					t.Error(err)
				}
			}
			checkHarmless(t, x)
		})
	}
}

// checkHarmless looks for what no layer may leave: files outside, devices
// other than whiteouts, set-id bits, attributes with a meaning.
func checkHarmless(t testing.TB, x string) {
	t.Helper()
	if out, _ := os.ReadDir(x); len(out) != 1 {
		t.Errorf("outside the layer: %v", out)
	}
	_ = filepath.WalkDir(filepath.Join(x, "layer"), func(p string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if unix.Lstat(p, &st) != nil {
			return nil
		}
		if m := st.Mode & unix.S_IFMT; m == unix.S_IFBLK || m == unix.S_IFCHR && st.Rdev != 0 {
			t.Errorf("device %s", p)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
			t.Errorf("set-id bit on %s", p)
		}
		buf := make([]byte, 4096)
		n, _ := unix.Llistxattr(p, buf)
		for _, a := range strings.Split(string(buf[:max(n, 0)]), "\x00") {
			if strings.HasPrefix(a, "trusted.") || strings.HasPrefix(a, "security.cap") || a == opaqueUser && !d.IsDir() {
				t.Errorf("attribute %s on %s", a, p)
			}
		}
		return nil
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(stream(f, dir("usr"), file("usr/x"), link("a", "../.."), file("a/b"), hard("c", "usr/x"), file(".wh.usr"), file("d/.wh..wh..opq")))
	f.Add(stream(f, link("a", "/"), dir("a/b"), file("a/b/c"), file("a")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, n, err := unpackHere(t, b, plainForm())
		if err == nil && n.Entries > 1000 {
			t.Errorf("%d entries, bound 1000", n.Entries)
		}
		checkHarmless(t, x)
		_ = removeTree(filepath.Join(x, "layer"))
	})
}

// FuzzEntries makes valid streams of hostile names, which random bytes rarely
// are.
func FuzzEntries(f *testing.F) {
	f.Add("a", "../..", "a/out", "a")
	f.Add("a", "/", "a/.wh..wh..opq", "a/..")
	f.Add("usr", "//proc/self/root", "usr/../x", "usr/x")
	f.Fuzz(func(t *testing.T, l, to, name, target string) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range []tar.Header{link(l, to), file(name), dir(name), hard(target, name), dir(l + "/" + target), link(name, l)} {
			h.Size = 0
			if w.WriteHeader(&h) != nil {
				return
			}
		}
		_ = w.Close()
		x, _, _ := unpackHere(t, b.Bytes(), plainForm())
		checkHarmless(t, x)
		_ = removeTree(filepath.Join(x, "layer"))
	})
}
