package server

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// A session lets a browser ask without the token in its pages: the token, or a
// one-time code, is exchanged for a cookie that scripts cannot read. It is
// signed with the token, so it holds in every process of that token, after a
// restart, too, and until the token changes or it expires.

// sessionPath is where a session begins (POST) and ends (DELETE).
const sessionPath = "/session"

// sessionLife is how long a browser stays signed in.
const sessionLife = 12 * time.Hour

// codeLife is how long a one-time code is good for.
const codeLife = 15 * time.Minute

// Pages serve a browser what is the same for everyone: files without a word
// about the fleet. They are shown before anyone signed in.
type Pages interface {
	// Page answers a GET or HEAD of path and reports true, or reports false and
	// has written nothing.
	Page(w http.ResponseWriter, r *http.Request, path string) bool
}

// codes are one-time codes that begin a session.
type codes struct {
	mu   sync.Mutex
	live map[[sha256.Size]byte]time.Time // digest -> until when
}

// SignInCode makes a code that begins one session within 15 minutes.
func (s *Server) SignInCode() string {
	code := rand.Text()
	s.codes.mu.Lock()
	defer s.codes.mu.Unlock()
	if s.codes.live == nil {
		s.codes.live = map[[sha256.Size]byte]time.Time{}
	}
	s.codes.live[digestOf(code)] = s.now().Add(codeLife)
	return code
}

// take uses a code up.
func (c *codes) take(code string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := digestOf(code)
	until, ok := c.live[d]
	delete(c.live, d)
	return ok && now.Before(until)
}

// local cuts the prefix that names one of several fleets: pages and sessions
// are the same for all.
func local(path string) string {
	rest, ok := strings.CutPrefix(path, "/fleets/")
	if !ok {
		return path
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) < 3 || parts[0] == "" || parts[1] == "" {
		return path
	}
	return "/" + parts[2]
}

// public answers what needs no session: the pages, and signing in and out.
func (s *Server) public(w http.ResponseWriter, r *http.Request) bool {
	if s.Pages == nil {
		return false
	}
	path := local(r.URL.Path)
	if path == sessionPath {
		s.session(w, r)
		return true
	}
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && s.Pages.Page(w, r, path)
}

func (s *Server) session(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet:
		role, err := s.authorized(r)
		writeJSON(w, struct {
			SignedIn bool   `json:"signedIn"`
			Role     string `json:"role"` // none, reader, operator, admin
		}{err == nil, role.String()})
	case r.Method != http.MethodPost && r.Method != http.MethodDelete:
		w.Header().Set("Allow", "GET, POST, DELETE")
		writeProblem(w, refuse(http.StatusMethodNotAllowed, "%s is not possible here; GET, POST or DELETE is", r.Method))
	case !fromOwnPage(r):
		writeProblem(w, errForeign)
	case r.Method == http.MethodDelete:
		http.SetCookie(w, s.cookie(r, "", -1))
		w.WriteHeader(http.StatusNoContent)
	default:
		s.signIn(w, r)
	}
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)) // not every writer has deadlines
	raw, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	var in struct {
		Token string `json:"token"`
		Code  string `json:"code"`
	}
	if err == nil {
		err = decodeBody(r.Header.Get("Content-Type"), raw, &in)
	}
	var se *statusError
	switch {
	case errors.As(err, &se):
		writeProblem(w, err)
		return
	case err != nil:
		writeProblem(w, &fleet.FieldError{Field: "body", Wrong: "cannot be read", Right: `{"token": "…"} or {"code": "…"}`})
		return
	}
	role := s.roleOf(in.Token)
	switch {
	case in.Code != "" && s.codes.take(in.Code, s.now()):
		role = Admin // who sees what the server prints can read its token, too
	case in.Code != "":
		writeProblem(w, refuse(http.StatusUnauthorized, "this sign-in link was used already or is too old; sign in with the token, which `muster token` prints"))
		return
	case role == NoRole:
		writeProblem(w, refuse(http.StatusUnauthorized, "this is not the token of this server; `muster token` prints it"))
		return
	}
	until := s.now().Add(sessionLife)
	http.SetCookie(w, s.cookie(r, s.sign(until, role), int(sessionLife/time.Second)))
	w.WriteHeader(http.StatusNoContent)
}

// errForeign refuses what a browser sends for another site's page.
var errForeign = refuse(http.StatusForbidden, "a session is only good for requests of the dashboard's own pages; programs send the token")

// fromOwnPage tells whether a request with consequences comes from a page of
// this very origin. Cookies go to every port of a machine; origins do not.
func fromOwnPage(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// signedIn checks the session of a request that carries no token.
func (s *Server) signedIn(r *http.Request) (Role, error) {
	c, err := r.Cookie(s.cookieName())
	if err != nil {
		return NoRole, nil //nolint:nilerr // no cookie, no session
	}
	role := s.valid(c.Value)
	if role == NoRole {
		return NoRole, nil
	}
	// A WebSocket is a GET that any page can ask for, and that browsers let it
	// read; another process of the control plane has looked at what it passes on.
	upgrade := r.Header.Get("Upgrade") != "" && r.Header.Get(headerForwarded) == ""
	if r.Method != http.MethodGet && r.Method != http.MethodHead || upgrade {
		if !fromOwnPage(r) {
			return NoRole, errForeign
		}
		return role, nil
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return role, nil
	}
	return NoRole, errForeign
}

// cookieName differs from server to server: they share a machine's cookies.
func (s *Server) cookieName() string { return "muster_" + s.mac("name")[:12] }

func (s *Server) cookie(r *http.Request, value string, age int) *http.Cookie {
	u, err := url.Parse(r.Header.Get("Origin"))
	return &http.Cookie{
		Name: s.cookieName(), Value: value, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || err == nil && u.Scheme == "https",
	}
}

func (s *Server) sign(until time.Time, role Role) string {
	at := strconv.FormatInt(until.Unix(), 10) + "." + role.String()
	return at + "." + s.mac("session "+at)
}

// valid is the role of a session; NoRole where it is none, or over.
func (s *Server) valid(value string) Role {
	cut := strings.LastIndexByte(value, '.')
	if cut < 0 || !hmac.Equal([]byte(value[cut+1:]), []byte(s.mac("session "+value[:cut]))) {
		return NoRole
	}
	at, name, _ := strings.Cut(value[:cut], ".")
	until, err := strconv.ParseInt(at, 10, 64)
	role, rerr := ParseRole(name)
	if err != nil || rerr != nil || s.now().Unix() >= until {
		return NoRole
	}
	return role
}

func (s *Server) mac(text string) string {
	h := hmac.New(sha256.New, s.token[:])
	h.Write([]byte("muster dashboard " + text))
	return hex.EncodeToString(h.Sum(nil))
}

// now is the clock, also of a server that only guards.
func (s *Server) now() time.Time {
	if s.Clock == nil {
		return time.Now()
	}
	return s.Clock()
}
