package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// guard is what every request passes: who may ask, and what every answer says.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracked{ResponseWriter: w}
		start := time.Now()
		defer func() {
			s.recovered(t, r, recover())
			s.Logger.Debug("request", "method", r.Method, "path", r.URL.Path, "status", t.status, "took", time.Since(start))
		}()
		harden(w.Header())
		if err := s.addressed(r); err != nil {
			writeProblem(t, err)
			return
		}
		if s.public(t, r) {
			return
		}
		if err := s.admit(r); err != nil {
			var se *statusError
			if errors.As(err, &se) && se.status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="muster"`)
			}
			writeProblem(t, err)
			return
		}
		rc := http.NewResponseController(w)
		if r.ContentLength != 0 {
			_ = rc.SetReadDeadline(time.Now().Add(readTimeout)) // not every writer has deadlines
		}
		// A request without a body gets no read deadline: one that passes while a
		// long poll is answered would cancel the connection's context, and with it
		// every later request of the same connection (net/http, connReader).
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		// One byte more than is allowed, so that too much shows as too much.
		r.Body = http.MaxBytesReader(t, r.Body, MaxBody+1)
		next.ServeHTTP(t, r)
	})
}

// harden closes what a browser would otherwise do with an answer.
func harden(h http.Header) {
	for name, value := range hardened {
		h.Set(name, value)
	}
}

var hardened = map[string]string{
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "no-store",
	"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'; sandbox",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Frame-Options":              "DENY",
}

// addressed refuses requests meant for another server, or sent by another
// one's pages.
func (s *Server) addressed(r *http.Request) error {
	if !s.ours(r.Host) {
		return refuse(http.StatusForbidden, "the host %q is not this server's; ask by IP address or localhost, or add the name to the server's hosts", shorten(r.Host))
	}
	if o := r.Header.Get("Origin"); o != "" {
		u, err := url.Parse(o)
		if err != nil || !strings.EqualFold(u.Host, r.Host) {
			return refuse(http.StatusForbidden, "requests from web pages of another origin are refused")
		}
	}
	return nil
}

// admit says why a request is refused.
func (s *Server) admit(r *http.Request) error {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/openapi.json", "/openapi.yaml":
		return nil
	case "/metrics":
		if fromHere(r.RemoteAddr) {
			return nil
		}
	}
	role, err := s.authorized(r)
	if want := needs(r); err == nil && role < want {
		return refuse(http.StatusForbidden, "this wants the role %s, and the token or session has the role %s; `muster token --role %s` makes a token of it, for who has the admin's", want, role, want)
	}
	return err
}

// authorized tells who asks.
func (s *Server) authorized(r *http.Request) (Role, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		if role, err := s.signedIn(r); role != NoRole || err != nil {
			return role, err
		}
		return NoRole, refuse(http.StatusUnauthorized, `no token: send "Authorization: Bearer TOKEN"; the token is in the file "token" of the server's data directory`)
	}
	role := s.roleOf(token)
	if role == NoRole {
		return NoRole, refuse(http.StatusUnauthorized, `wrong token; the right one is in the file "token" of the server's data directory`)
	}
	return role, nil
}

// ours tells whether the server may be called by that name. A web page can
// point its own name at this machine, but not an address or localhost.
func (s *Server) ours(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.ContainsFunc(s.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// fromHere tells whether the caller is this machine itself.
func fromHere(remote string) bool {
	a, err := netip.ParseAddrPort(remote)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// recovered answers a request whose handler panicked.
func (s *Server) recovered(t *tracked, r *http.Request, v any) {
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // net/http's own way to cut a connection
	}
	s.Logger.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	if t.status == 0 {
		writeProblem(t, errors.New("internal error; the server's log says more"))
		return
	}
	panic(http.ErrAbortHandler) // half an answer must not look whole
}

// tracked remembers whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	status int
}

func (t *tracked) WriteHeader(status int) {
	if t.status == 0 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	return t.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// fallback answers what no route does: 405 where the path has other methods,
// else 404.
func fallback(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			other := r.Clone(context.WithoutCancel(r.Context()))
			other.Method = m
			if _, pattern := mux.Handler(other); pattern != "" && pattern != "/" {
				allowed = append(allowed, m)
			}
		}
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeProblem(w, refuse(http.StatusMethodNotAllowed, "%s is not possible here; %s is", r.Method, strings.Join(allowed, " or ")))
			return
		}
		writeProblem(w, refuse(http.StatusNotFound, "there is nothing at %s; GET /openapi.json lists what there is", shorten(r.URL.Path)))
	}
}

func shorten(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
