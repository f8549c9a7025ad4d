package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Forwarding is how the API reaches the processes that carry sandboxes
// (fleet.Consumer): exec, live usage and the prompt end of a cancelled task are
// theirs.
type Forwarding struct {
	// Transport reaches an owner's API: https, at the address that it tells of
	// itself.
	Transport http.RoundTripper
	// Path is where the fleet's API is there; see FleetPath.
	Path string
}

// headerForwarded marks what another process has passed on: it is not passed on
// again.
const headerForwarded = "Muster-Forwarded"

// tellTime bounds how long a cancellation waits for the owner, which hears of it
// from the store, too.
const tellTime = time.Second

// forwarding passes on what only the owner of a task's sandbox can answer.
func (s *Server) forwarding(next http.Handler) http.Handler {
	if s.Forward == nil {
		return next
	}
	mux := http.NewServeMux()
	pass := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerForwarded) != "" {
			next.ServeHTTP(w, r)
			return
		}
		t, owner, err := s.ownerOf(r.Context(), r.PathValue("id"))
		switch {
		case err != nil:
			writeProblem(w, err)
		case owner.Name == "":
			next.ServeHTTP(w, r)
		default:
			s.forward(w, r, t, owner)
		}
	}
	mux.HandleFunc("GET "+v1alpha1.RouteTaskExec, pass)
	mux.HandleFunc("GET "+v1alpha1.RouteTaskUsage, pass)
	mux.Handle("/", next)
	return mux
}

// ownerOf finds who carries a task's sandbox; without a name where nobody does
// but this process, or where the routes know better what is wrong.
func (s *Server) ownerOf(ctx context.Context, id string) (fleet.Task, fleet.Consumer, error) {
	t, err := s.task(ctx, id)
	if err != nil || !t.State.Active() || t.Sandbox == "" {
		return t, fleet.Consumer{}, nil
	}
	b, err := s.Store.Sandbox(ctx, t.Sandbox)
	switch {
	case errors.Is(err, fleet.ErrNotFound):
		return t, fleet.Consumer{}, nil
	case err != nil || b.Owner == "":
		return t, fleet.Consumer{}, err
	}
	all, err := s.Store.Consumers(ctx)
	if err != nil {
		return t, fleet.Consumer{}, err
	}
	for _, c := range all {
		if c.Name == b.Owner && c.Age < fleet.ConsumerSilence && c.Address != "" {
			return t, c, nil
		}
	}
	return t, fleet.Consumer{}, away(t.ID, b.Owner, "has not been heard of lately")
}

// away says that an owner cannot be asked.
func away(id fleet.TaskID, owner, why string) error {
	return &statusError{status: http.StatusServiceUnavailable, retry: 2, text: fmt.Sprintf(
		"consumer %s, which carries the sandbox of task %s, %s; the task goes on, and another takes it over within half a minute: try again", owner, id, why)}
}

// forward passes a request on with the caller's own credentials, and the answer,
// or the streams of an upgrade, back.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, t fleet.Task, owner fleet.Consumer) {
	ctx, done, err := s.stream(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	defer done()
	if r.Header.Get("Upgrade") != "" {
		// The request's deadlines would outlive it on the connection.
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Time{})
		_ = rc.SetWriteDeadline(time.Time{})
	}
	p := httputil.ReverseProxy{
		Transport: s.Forward.Transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "https", Host: owner.Address})
			p.Out.URL.Path, p.Out.URL.RawPath = s.Forward.Path+p.In.URL.Path, ""
			p.Out.Header.Set(headerForwarded, "1")
			p.Out.Header.Del("Origin") // it was found to be ours
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			s.Logger.Debug("cannot forward", "task", t.ID, "owner", owner.Name, "error", err)
			writeProblem(w, away(t.ID, owner.Name, "does not answer"))
		},
		ModifyResponse: func(a *http.Response) error {
			for h := range hardened {
				a.Header.Del(h) // ours are set already
			}
			return nil
		},
	}
	p.ServeHTTP(w, r.WithContext(ctx))
}

// tellOwner lets the owner of a task's sandbox end it at once. Where that fails
// it ends all the same, a few seconds later: the store says so.
func (s *Server) tellOwner(ctx context.Context, id fleet.TaskID, authorization string) {
	if s.Forward == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	_, owner, err := s.ownerOf(ctx, string(id))
	if err == nil && owner.Name != "" {
		err = s.tell(ctx, owner, id, authorization)
	}
	if err != nil {
		s.Logger.Debug("the owner of a cancelled task was not told", "task", id, "error", err)
	}
}

func (s *Server) tell(ctx context.Context, owner fleet.Consumer, id fleet.TaskID, authorization string) error {
	path := s.Forward.Path + strings.Replace(v1alpha1.RouteTaskCancel, "{id}", string(id), 1)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+owner.Address+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set(headerForwarded, "1")
	req.Header.Set("Authorization", authorization)
	a, err := s.Forward.Transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(a.Body, MaxBody)) // so that the connection can be used again
	return a.Body.Close()
}

// Forwarded answers what other processes of the control plane have passed on,
// and only that. It guards like the rest: the caller's own token is asked for.
func (f *Fleets) Forwarded(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	pass := func(w http.ResponseWriter, r *http.Request) {
		namespace, name := r.PathValue("namespace"), r.PathValue("name")
		s := f.find(namespace + "/" + name)
		if s == nil {
			writeProblem(w, &statusError{status: http.StatusServiceUnavailable, retry: 1, text: "this process does not carry the fleet"})
			return
		}
		f.pass(w, r, s, http.StripPrefix(FleetPath(namespace, name), s))
	}
	const fleetOf = "/fleets/{namespace}/{name}"
	mux.HandleFunc("GET "+fleetOf+v1alpha1.RouteTaskExec, pass)
	mux.HandleFunc("GET "+fleetOf+v1alpha1.RouteTaskUsage, pass)
	mux.HandleFunc("POST "+fleetOf+v1alpha1.RouteTaskCancel, pass)
	f.gate.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerForwarded) == "" {
			writeProblem(w, refuse(http.StatusNotFound, "there is nothing here"))
			return
		}
		mux.ServeHTTP(w, r)
	})).ServeHTTP(w, r)
}
