package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed assets
var assets embed.FS

// policy is the Content-Security-Policy of every page: everything from this
// server, no script or style within the page, no frames.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// kinds are the content types of the files there are.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// Pages serves the dashboard's files.
type Pages struct {
	files map[string]file // by path
}

type file struct {
	text []byte
	kind string
	etag string
}

// New reads the embedded files.
func New() (*Pages, error) {
	p := &Pages{files: map[string]file{}}
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		kind, ok := kinds[path.Ext(name)]
		if !ok {
			return fmt.Errorf("web: no content type for %s", name)
		}
		sum := sha256.Sum256(text)
		at := "/" + strings.TrimPrefix(name, "assets/")
		if at == "/index.html" {
			at = "/"
		}
		p.files[at] = file{text, kind, `"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	return p, err
}

// Page answers a request for one of the files and reports whether it did.
func (p *Pages) Page(w http.ResponseWriter, r *http.Request, at string) bool {
	f, ok := p.files[at]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // asked for again each time, by its ETag
	h.Set("ETag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	_, _ = w.Write(f.text) // the client may be gone
	return true
}
