package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// TestRoles: each route answers whom it should, by token and by session. What
// is refused says who may.
func TestRoles(t *testing.T) {
	r := newBrowserRig(t)
	values := strings.NewReplacer("{id}", "t0123456789abcdefghij", "{seq}", "1", "{name}", "x", "{path}", "x", "{digest}", strings.Repeat("0", 64), "{n}", "1")
	cookies := map[Role]*http.Cookie{}
	for _, role := range []Role{Reader, Operator, Admin} {
		cookies[role] = r.signIn(map[string]string{"token": TokenFor(testToken, role)})
		var s struct {
			SignedIn bool
			Role     string
		}
		if err := json.NewDecoder(r.do(r.browse("GET", "/session", "", nil, cookies[role])).Body).Decode(&s); err != nil || !s.SignedIn || s.Role != role.String() {
			t.Errorf("the session of a %s says %+v (%v)", role, s, err)
		}
	}
	for path, methods := range contract {
		for _, method := range methods {
			if strings.HasSuffix(path, "/wait") || path == "/healthz" || path == "/readyz" {
				continue
			}
			want := Reader
			if (method != "GET" && path != v1alpha1.RouteWhatIf) || strings.HasSuffix(path, "/exec") {
				want = Operator
			}
			for role, cookie := range cookies {
				byToken := r.request(method, values.Replace(path), nil)
				byToken.Header.Set("Authorization", "Bearer "+TokenFor(testToken, role))
				for how, req := range map[string]*http.Request{"token": byToken, "session": r.browse(method, values.Replace(path), r.url, nil, cookie)} {
					if role < want {
						if p := r.problem(req, http.StatusForbidden); !strings.Contains(p.Detail, "operator") {
							t.Errorf("%s %s: the refusal says %q", method, path, p.Detail)
						}
						continue
					}
					if resp := r.do(req); resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized {
						t.Errorf("%s %s by %s of a %s: %s", method, path, how, role, resp.Status)
					}
				}
			}
		}
	}
}

// TestReadersAskWhatIf: a reader's question is answered, a second one at the
// same time is put off with the time to come back, and putting the answer in
// force stays an operator's.
func TestReadersAskWhatIf(t *testing.T) {
	a := &adviser{}
	r := newRig(t, func(c *Config) { c.Adviser = a })
	ask := func(method, path string) *http.Request {
		req := r.request(method, path, `{"patch":{"spec":{"capacity":{"sandboxes":{"min":2}}}}}`)
		req.Header.Set("Authorization", "Bearer "+TokenFor(testToken, Reader))
		return req
	}
	if resp := r.do(ask("POST", "/v1/whatif")); resp.StatusCode != http.StatusOK {
		t.Errorf("a reader's what-if: %s", resp.Status)
	}
	a.err = fmt.Errorf("another simulation is under way: %w", fleet.ErrFull)
	if resp := r.do(ask("POST", "/v1/whatif")); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("while another is answered: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	for method, path := range map[string]string{"POST": "/v1/fleet/patch", "PUT": "/v1/whatif", "DELETE": "/v1/whatif"} {
		r.problem(ask(method, path), http.StatusForbidden)
	}
}

// TestRolesCannotBeMade: a token of a role opens no other role, and a cookie
// cannot be changed into one.
func TestRolesCannotBeMade(t *testing.T) {
	r := newBrowserRig(t)
	reader := TokenFor(testToken, Reader)
	for _, token := range []string{
		strings.Replace(reader, "reader", "operator", 1), strings.Replace(reader, "reader", "admin", 1), TokenFor(reader, Operator), "reader-", reader + "0", reader[:len(reader)-1],
	} {
		req := r.request("GET", "/v1/fleet", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		r.problem(req, http.StatusUnauthorized)
	}
	c := r.signIn(map[string]string{"token": reader})
	for _, value := range []string{strings.Replace(c.Value, "reader", "admin", 1), strings.Replace(c.Value, ".reader", "", 1), "." + c.Value, c.Value + "0"} {
		r.problem(r.browse("GET", "/v1/fleet", "", nil, &http.Cookie{Name: c.Name, Value: value}), http.StatusUnauthorized)
	}
	if _, err := ParseRole("root"); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("an unknown role: %v", err)
	}
}

// TestSocketOfAnotherPage: a WebSocket with a session wants the origin, which a
// GET does not.
func TestSocketOfAnotherPage(t *testing.T) {
	r := newBrowserRig(t)
	c := r.signIn(map[string]string{"token": testToken})
	for _, origin := range []string{"", "null", "http://127.0.0.1:1", "https://evil.example"} {
		req := r.browse("GET", "/v1/tasks/t0123456789abcdefghij/exec", origin, nil, c)
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Connection", "Upgrade")
		r.problem(req, http.StatusForbidden)
	}
	req := r.browse("GET", "/v1/tasks/t0123456789abcdefghij/exec", r.url, nil, c)
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Connection", "Upgrade")
	r.problem(req, http.StatusNotFound) // there is no such task
}
