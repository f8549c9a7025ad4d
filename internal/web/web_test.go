package web

import (
	"io/fs"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

func newPages(t *testing.T) *Pages {
	t.Helper()
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestHeaders(t *testing.T) {
	p := newPages(t)
	for at := range p.files {
		w := httptest.NewRecorder()
		if !p.Page(w, httptest.NewRequest("GET", at, nil), at) || w.Code != 200 || w.Body.Len() == 0 {
			t.Fatalf("%s: %d", at, w.Code)
		}
		h := w.Header()
		csp := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s: %q is not in the policy %q", at, part, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
			t.Errorf("%s: the policy is %q", at, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Type") == "" || h.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %v", at, h)
		}
		again := httptest.NewRequest("GET", at, nil)
		again.Header.Set("If-None-Match", h.Get("ETag"))
		w = httptest.NewRecorder()
		if p.Page(w, again, at); w.Code != 304 || w.Body.Len() != 0 {
			t.Errorf("%s again: %d, %d bytes", at, w.Code, w.Body.Len())
		}
	}
	for _, at := range []string{"/nothing", "/index.html", "/js", "/js/", "//", "/../web.go", "/v1/fleet", ""} {
		w := httptest.NewRecorder()
		if p.Page(w, httptest.NewRequest("GET", "/", nil), at) || len(w.Header()) != 0 {
			t.Errorf("%q is served", at)
		}
	}
}

// hostile are the ways by which text becomes markup or code. What agents and
// their tasks say reaches the page only as text nodes and attributes.
var hostile = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|setHTML|srcdoc|javascript:|import\(|setTimeout\("|\bon\w+=`)

// sources are our own files.
func sources(t *testing.T, f func(name, text string)) {
	t.Helper()
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "vendor" {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() {
			return err
		}
		text, err := assets.ReadFile(name)
		if err == nil {
			f(name, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingBecomesMarkup(t *testing.T) {
	sources(t, func(name, text string) {
		text = strings.ReplaceAll(text, `import("./terminal.js")`, "") // a fixed file, when it is wanted
		for _, m := range hostile.FindAllString(text, -1) {
			t.Errorf("%s uses %s", name, m)
		}
	})
}

// TestEverythingIsFromHere: the pages work without a network, and the policy
// would refuse anything else.
func TestEverythingIsFromHere(t *testing.T) {
	p := newPages(t)
	from := regexp.MustCompile(`from "([^"]+)"`)
	sources(t, func(name, text string) {
		for _, m := range regexp.MustCompile(`(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//[^"' )]+`).FindAllString(text, -1) {
			t.Errorf("%s loads %s", name, m)
		}
		if strings.Contains(name, ".html") && regexp.MustCompile(`<style|style=|<script>`).MatchString(text) {
			t.Errorf("%s has a script or style within, which the policy refuses", name)
		}
		for _, m := range from.FindAllStringSubmatch(text, -1) {
			at := path.Join("/", path.Dir(strings.TrimPrefix(name, "assets")), m[1])
			if _, ok := p.files[at]; !ok && strings.HasSuffix(name, ".js") {
				t.Errorf("%s imports %s, which is not there", name, m[1])
			}
		}
	})
}

func TestFilesAreSmall(t *testing.T) {
	sources(t, func(name, text string) {
		if n := strings.Count(text, "\n"); n > 500 {
			t.Errorf("%s has %d lines", name, n)
		}
	})
}
