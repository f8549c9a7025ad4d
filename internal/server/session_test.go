package server

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// onePage is a dashboard of one file.
type onePage struct{}

func (onePage) Page(w http.ResponseWriter, _ *http.Request, path string) bool {
	if path != "/" {
		return false
	}
	w.Header().Set("Content-Security-Policy", "page")
	_, _ = io.WriteString(w, "a page")
	return true
}

func newBrowserRig(t *testing.T) *rig {
	return newRig(t, func(c *Config) { c.Pages = onePage{} })
}

// browse is a request as a browser sends it from a page of origin.
func (r *rig) browse(method, path, origin string, body any, cookies ...*http.Cookie) *http.Request {
	req := r.request(method, path, body)
	req.Header.Del("Authorization")
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	for _, c := range cookies {
		req.AddCookie(c)
	}
	return req
}

func (r *rig) signIn(body map[string]string) *http.Cookie {
	r.t.Helper()
	resp := r.do(r.browse("POST", "/session", r.url, body))
	if resp.StatusCode != 204 || len(resp.Cookies()) != 1 {
		r.t.Fatalf("signing in: %s, %d cookies", resp.Status, len(resp.Cookies()))
	}
	return resp.Cookies()[0]
}

func TestSession(t *testing.T) {
	r := newBrowserRig(t)
	c := r.signIn(map[string]string{"token": testToken})
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge <= 0 || strings.Contains(c.Value, testToken) {
		t.Errorf("the cookie is %+v", c)
	}
	for _, path := range []string{"/v1/fleet", "/v1/tasks", "/v1/sandboxes", "/v1/events"} {
		if resp := r.do(r.browse("GET", path, "", nil, c)); resp.StatusCode != 200 {
			t.Errorf("%s with a session: %s", path, resp.Status)
		}
	}
	task := map[string]any{"tasks": []any{map[string]any{"command": []string{"true"}}}}
	if resp := r.do(r.browse("POST", "/v1/tasks", r.url, task, c)); resp.StatusCode != 201 {
		t.Errorf("submitting with a session: %s", resp.Status)
	}
	out := r.do(r.browse("DELETE", "/session", r.url, nil, c))
	if out.StatusCode != 204 || out.Cookies()[0].MaxAge >= 0 {
		t.Errorf("signing out: %s %v", out.Status, out.Cookies())
	}
}

func TestLoggedOutSeesNothing(t *testing.T) {
	r := newBrowserRig(t)
	for path := range contract {
		if path == "/healthz" || path == "/readyz" {
			continue
		}
		at := strings.NewReplacer("{id}", "t0123456789abcdefghij", "{seq}", "1", "{name}", "x", "{path}", "x", "{digest}", strings.Repeat("0", 64)).Replace(path)
		for _, c := range []*http.Cookie{
			nil, {Name: r.server.cookieName(), Value: ""}, {Name: r.server.cookieName(), Value: "9999999999.00"},
			{Name: r.server.cookieName(), Value: testToken}, {Name: "muster", Value: r.server.sign(time.Now().Add(time.Hour), Admin)},
			{Name: r.server.cookieName(), Value: r.server.sign(time.Now().Add(-time.Second), Admin)},
		} {
			req := r.browse("GET", at, "", nil)
			if c != nil {
				req.AddCookie(c)
			}
			r.problem(req, 401)
		}
	}
	if resp := r.do(r.browse("GET", "/", "", nil)); resp.StatusCode != 200 || resp.Header.Get("Content-Security-Policy") != "page" {
		t.Errorf("the page: %s %v", resp.Status, resp.Header)
	}
	var signedIn strings.Builder
	_, _ = io.Copy(&signedIn, r.do(r.browse("GET", "/session", "", nil)).Body)
	if !strings.Contains(signedIn.String(), `"signedIn":false`) {
		t.Errorf("GET /session says %s", signedIn.String())
	}
}

// A session is good for the dashboard's own pages only: another port of the
// same machine is the same site to a browser, and gets the same cookies.
func TestSessionOfAnotherPage(t *testing.T) {
	r := newBrowserRig(t)
	c := r.signIn(map[string]string{"token": testToken})
	task := map[string]any{"tasks": []any{map[string]any{"command": []string{"true"}}}}
	for name, req := range map[string]*http.Request{
		"no origin":          r.browse("POST", "/v1/tasks", "", task, c),
		"another port":       r.browse("POST", "/v1/tasks", "http://127.0.0.1:1", task, c),
		"null":               r.browse("POST", "/v1/tasks", "null", task, c),
		"sign in from there": r.browse("POST", "/session", "http://127.0.0.1:1", map[string]string{"token": testToken}),
		"sign in from none":  r.browse("POST", "/session", "", map[string]string{"token": testToken}),
		"sign out":           r.browse("DELETE", "/session", "", nil, c),
	} {
		t.Run(name, func(*testing.T) { r.problem(req, 403) })
	}
	for _, site := range []string{"same-site", "cross-site"} {
		for _, method := range []string{"GET", "POST"} {
			req := r.browse(method, "/v1/tasks", r.url, task, c)
			req.Header.Set("Sec-Fetch-Site", site)
			r.problem(req, 403)
		}
	}
}

func TestSignInRefused(t *testing.T) {
	r := newBrowserRig(t)
	code := r.server.SignInCode()
	for _, body := range []map[string]string{{}, {"token": ""}, {"token": "x"}, {"token": testToken[:31]}, {"code": "x"}, {"code": code + "x"}} {
		p := r.problem(r.browse("POST", "/session", r.url, body), 401)
		if strings.Contains(p.Detail, testToken) {
			t.Error("the answer holds the token")
		}
	}
	r.problem(r.browse("POST", "/session", r.url, map[string]string{"pass": "x"}), 422)
	c := r.signIn(map[string]string{"code": code})
	if resp := r.do(r.browse("GET", "/v1/fleet", "", nil, c)); resp.StatusCode != 200 {
		t.Errorf("by link: %s", resp.Status)
	}
	r.problem(r.browse("POST", "/session", r.url, map[string]string{"code": code}), 401)
}

func TestSignInCodeExpires(t *testing.T) {
	now := time.Now()
	r := newRig(t, func(c *Config) { c.Pages, c.Clock = onePage{}, func() time.Time { return now } })
	code := r.server.SignInCode()
	now = now.Add(codeLife)
	r.problem(r.browse("POST", "/session", r.url, map[string]string{"code": code}), 401)
	c := r.signIn(map[string]string{"token": testToken})
	now = now.Add(sessionLife)
	r.problem(r.browse("GET", "/v1/fleet", "", nil, c), 401)
}

// Without a dashboard there are no sessions.
func TestNoPagesNoSession(t *testing.T) {
	r := newRig(t)
	r.problem(r.browse("POST", "/session", r.url, map[string]string{"token": testToken}), 401)
	r.problem(r.browse("GET", "/", "", nil), 401)
}

func TestPagesOfSeveralFleets(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/js/app.js": "/js/app.js", "/fleets/a/b/": "/", "/fleets/a/b/js/app.js": "/js/app.js", "/fleets/a/b": "/fleets/a/b",
		"/fleets": "/fleets", "/fleets//b/": "/fleets//b/", "/fleets/a/b/session": "/session",
	} {
		if got := local(path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
