package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Protocol is the value of the Upgrade header.
const Protocol = "muster-runner/1"

// The paths of the two streams.
const (
	PathLink   = "/runner/v1/link"
	PathEgress = "/runner/v1/egress"
)

// Identity is a pod. A runner that shows a session is known by its UID alone;
// the other fields are empty then.
type Identity struct{ Namespace, Pod, UID string }

// Peer is the control plane's end of one sandbox. Both methods take the
// connection over when they return nil, and have not touched it when they
// return an error, which says what the runner is answered: fleet.ErrDenied,
// ErrNotFound, or else "later". Neither blocks.
type Peer interface {
	Link(net.Conn) error   // the stream of internal/protocol; its token is the session
	Egress(net.Conn) error // to the allow-list proxy; ErrDenied where there is none
}

// Options of a Gateway.
type Options struct {
	// Key signs sessions: 32 bytes, the same in all processes of a control
	// plane and after its restart.
	Key []byte
	// Verify says whose a bearer is. fleet.ErrDenied: nobody's; any other error:
	// it could not be found out, and the runner comes again.
	Verify func(ctx context.Context, bearer string) (Identity, error)
	// Peers finds the sandbox of a pod. fleet.ErrNotFound: it is none of ours;
	// fleet.ErrUnavailable: we do not know yet.
	// ErrSpent: its runner has a session, and showed its identity all the same.
	Peers func(ctx context.Context, id Identity) (Peer, error)
	// Elsewhere says at which host:port another process with this Key takes the
	// runner of a sandbox that Peers does not know; false where that is nobody,
	// or this process. It may block until ctx ends. nil: there is no other.
	Elsewhere func(ctx context.Context, id fleet.SandboxID) (address string, ok bool)
	Logger    *slog.Logger // nil: discarded
}

// ErrSpent says that a one-time identity was used before, whichever process
// took it.
var ErrSpent error = spent

const (
	// keyBytes is the size of the key, that of the hash.
	keyBytes = sha256.Size
	// maxBearer is above any token of an API server (about 1 KiB).
	maxBearer = 8 << 10
	// maxUID is above any UID (36 bytes).
	maxUID = 64
	// verifying bounds requests to the API server at once; waiting bounds those
	// that wait for it, each for at most askTimeout.
	verifying = 64
	waiting   = 1024
	// askTimeout bounds Verify, Peers and Elsewhere together.
	askTimeout = 10 * time.Second
	// writeTimeout bounds an answer.
	writeTimeout = 10 * time.Second
	// retryAfter is what those hear who are to come again, in seconds.
	retryAfter = "1"
)

// Gateway is an http.Handler; see the package comment. It is to be served over
// TLS and HTTP/1.1, as Server does.
type Gateway struct {
	o    Options
	log  *slog.Logger
	used *usage
	ask  chan struct{} // one per verification under way
	wait chan struct{} // one per request that wants one
}

// New returns a Gateway. It panics where the key has not 32 bytes or a
// function is missing: that is wiring, not input.
func New(o Options) *Gateway {
	if len(o.Key) != keyBytes || o.Verify == nil || o.Peers == nil {
		panic("gateway: want a key of 32 bytes, Verify and Peers")
	}
	o.Key = slices.Clone(o.Key)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Gateway{
		o: o, log: o.Logger, used: newUsage(time.Now),
		ask: make(chan struct{}, verifying), wait: make(chan struct{}, waiting),
	}
}

// Session returns the session string of a pod: what its runner shows when it
// comes again, and the token of its hello.
func (g *Gateway) Session(uid string) string {
	h := hmac.New(sha256.New, g.o.Key)
	h.Write([]byte("session"))
	h.Write([]byte(uid))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// answer is a refusal: what the runner is told.
type answer struct {
	status int
	text   string
}

func (a *answer) Error() string { return fmt.Sprintf("%d: %s", a.status, a.text) }

var (
	later     = &answer{http.StatusServiceUnavailable, "not now; come again"}
	notValid  = &answer{http.StatusUnauthorized, "the identity of this sandbox is not valid"}
	noSession = &answer{http.StatusUnauthorized, "the session of this sandbox is not valid"}
	spent     = &answer{http.StatusUnauthorized, "the identity of this sandbox was used already; show the session"}
	notOurs   = &answer{http.StatusNotFound, "this pod is no sandbox of this control plane"}
	forbidden = &answer{http.StatusForbidden, "this sandbox may not have that"}
)

// errNotYet marks what is common after a restart: sandboxes are faster than
// their adoption.
var errNotYet = errors.New("not known yet")

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a := wellFormed(r); a != nil {
		refuse(w, a)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	id, first, err := g.identify(ctx, r)
	if err != nil {
		g.refused(r, id, err)
		refuse(w, asAnswer(err))
		return
	}
	peer, err := g.o.Peers(ctx, id)
	if to := g.elsewhere(ctx, r, id, err); to != "" {
		redirect(w, r, to)
		return
	}
	if errors.Is(err, fleet.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", errNotYet, err)
	}
	if err != nil {
		g.refused(r, id, err)
		refuse(w, asAnswer(err))
		return
	}
	if err := g.upgrade(w, r, id, stream{peer: peer, first: first}); err != nil {
		g.refused(r, id, err)
	}
}

// wellFormed refuses what is no upgrade of ours.
func wellFormed(r *http.Request) *answer {
	switch {
	case r.URL.Path != PathLink && r.URL.Path != PathEgress:
		return &answer{http.StatusNotFound, "no such path"}
	case r.Method != http.MethodGet:
		return &answer{http.StatusMethodNotAllowed, "want GET"}
	case r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.ContentLength != 0 ||
		!listed(r.Header.Values("Connection"), "upgrade") || !listed(r.Header.Values("Upgrade"), Protocol):
		return &answer{http.StatusUpgradeRequired, "want HTTP/1.1 without a body, Connection: Upgrade and Upgrade: " + Protocol}
	}
	return nil
}

// listed reports whether one of the comma-separated values is want.
func listed(values []string, want string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), want) {
				return true
			}
		}
	}
	return false
}

// identify says who asks; first where it has no session yet.
func (g *Gateway) identify(ctx context.Context, r *http.Request) (id Identity, first bool, err error) {
	given := r.Header.Values("Authorization")
	if len(given) != 1 {
		return id, false, notValid
	}
	scheme, rest, _ := strings.Cut(given[0], " ")
	switch {
	case strings.EqualFold(scheme, "Muster"):
		uid, session, _ := strings.Cut(rest, " ")
		if uid == "" || len(uid) > maxUID {
			return id, false, noSession
		}
		if subtle.ConstantTimeCompare([]byte(session), []byte(g.Session(uid))) != 1 {
			return id, false, noSession
		}
		g.used.mark(uid)
		return Identity{UID: uid}, false, nil
	case strings.EqualFold(scheme, "Bearer") && r.URL.Path == PathLink:
		id, err = g.verify(ctx, strings.TrimSpace(rest))
		return id, true, err
	}
	return id, false, notValid
}

// verify asks whose a bearer is, within the bounds.
func (g *Gateway) verify(ctx context.Context, bearer string) (Identity, error) {
	if bearer == "" || len(bearer) > maxBearer {
		return Identity{}, notValid
	}
	select {
	case g.wait <- struct{}{}:
		defer func() { <-g.wait }()
	default:
		return Identity{}, fmt.Errorf("%w: %d identities wait to be verified", fleet.ErrFull, waiting)
	}
	select {
	case g.ask <- struct{}{}:
		defer func() { <-g.ask }()
	case <-ctx.Done():
		return Identity{}, fmt.Errorf("%w: wait to verify an identity: %w", fleet.ErrUnavailable, ctx.Err())
	}
	id, err := g.o.Verify(ctx, bearer)
	if errors.Is(err, fleet.ErrDenied) {
		return id, fmt.Errorf("%w: %w", notValid, err)
	}
	if err != nil {
		return id, err
	}
	if id.UID == "" || len(id.UID) > maxUID || strings.ContainsFunc(id.UID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return id, fmt.Errorf("%w: the identity names no pod", notValid)
	}
	if g.used.has(id.UID) {
		return id, spent
	}
	return id, nil
}

// Forget drops what is remembered of a pod that is gone; its identity is not
// valid any more then. Without it that is dropped after a day.
func (g *Gateway) Forget(uid string) { g.used.forget(uid) }

// asAnswer is what the runner is told of an error.
func asAnswer(err error) *answer {
	var a *answer
	switch {
	case errors.As(err, &a):
		return a
	case errors.Is(err, fleet.ErrNotFound):
		return notOurs
	case errors.Is(err, fleet.ErrDenied):
		return forbidden
	}
	return later
}

// refused logs: what is a caller's fault quietly, since anybody may call.
func (g *Gateway) refused(r *http.Request, id Identity, err error) {
	level := slog.LevelDebug
	if asAnswer(err) == later && !errors.Is(err, context.Canceled) && !errors.Is(err, errNotYet) {
		level = slog.LevelWarn
	}
	g.log.Log(r.Context(), level, "runner refused", "path", r.URL.Path, "from", r.RemoteAddr, "pod", id.Pod, "uid", id.UID, "err", err)
}

// refuse answers and ends the connection.
func refuse(w http.ResponseWriter, a *answer) {
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	switch a.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter)
	case http.StatusUpgradeRequired:
		h.Set("Upgrade", Protocol)
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.text + "\n"))
}
