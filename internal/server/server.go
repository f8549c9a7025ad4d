package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Engine is what the API asks of the running fleet. Errors wrap the kinds of
// package fleet.
type Engine interface {
	// View is the fleet as it is now; cheap.
	View(ctx context.Context) (fleet.View, error)
	// Cancel ends a task; idempotent. by is for people.
	Cancel(ctx context.Context, id fleet.TaskID, by string) (fleet.Task, error)
	// Exec runs a command beside a running task until it ends or ctx does.
	Exec(ctx context.Context, id fleet.TaskID, r fleet.ExecRequest) (int, error)
	// Usage reads the counters of a task's sandbox, or what it used in the end.
	Usage(ctx context.Context, id fleet.TaskID) (fleet.Usage, error)
	// SandboxUsage reads the counters of a sandbox that exists.
	SandboxUsage(ctx context.Context, id fleet.SandboxID) (fleet.Usage, error)
	ExplainTask(ctx context.Context, id fleet.TaskID) (fleet.Explanation, error)
	ExplainEvent(ctx context.Context, seq int64) (fleet.Explanation, error)
	// Forecast is what the fleet or one template expects of its load; up to a
	// second of work with a back-test.
	Forecast(ctx context.Context, q fleet.ForecastQuery) (fleet.Forecast, error)
	// LeadTimes is how long each stage of a reaction took lately; cheap.
	LeadTimes(ctx context.Context) (fleet.LeadTimes, error)
	// Shadow compares a fleet that others work for with what Muster would have
	// had; ErrNotFound where Muster runs the tasks.
	Shadow(ctx context.Context, since time.Time) (fleet.Shadow, error)
}

// Ledger is what the API asks about money. Errors are a *fleet.FieldError of
// the query, or wrap the kinds of package fleet.
type Ledger interface {
	// Report takes up to 200 ms.
	Report(ctx context.Context, q fleet.CostQuery) (fleet.CostReport, error)
	// Series takes up to 200 ms.
	Series(ctx context.Context, since, until time.Time) (fleet.CostSeries, error)
	// Past takes up to a second or two, for hours of a hundred days.
	Past(ctx context.Context, q fleet.PastQuery) (fleet.Past, error)
	// Focus writes a table in the columns of FOCUS.
	Focus(ctx context.Context, q fleet.CostQuery, to io.Writer) error
	// Budgets are answered at once, from memory.
	Budgets() []fleet.BudgetView
	// TaskCost is ErrNotFound where nothing was charged to the task.
	TaskCost(ctx context.Context, id fleet.TaskID) (fleet.TaskCost, error)
}

// Bounds of the server.
const (
	// MaxBody bounds a request's body, in bytes.
	MaxBody = v1alpha1.MaxInput
	// maxStreams bounds logs, events, waits and execs at once.
	maxStreams = 4096
	// readTimeout bounds the reading of a request's header, and again of its
	// body.
	readTimeout = 30 * time.Second
	// writeTimeout bounds one answer that is no stream.
	writeTimeout = 5 * time.Minute
	// stallTimeout is how long a client of a stream may take nothing.
	stallTimeout = 30 * time.Second
	// heartbeat is how often a quiet stream shows that it lives.
	heartbeat = 15 * time.Second
)

// Config is what a Server is made of.
type Config struct {
	Store   fleet.Store
	Archive fleet.Archive
	Engine  Engine
	Ledger  Ledger  // nil: nothing is charged
	Adviser Adviser // nil: others run the workers, and nothing is simulated
	// Evidence gathers what can be shown of the fleet, at most 31 days of it;
	// errors are a *fleet.FieldError of the query or those of the store; nil: none.
	Evidence func(context.Context, fleet.EvidenceQuery) (fleet.Evidence, error)
	// Fleet is the fleet in force, with defaults; called for each submission.
	Fleet func() *v1alpha1.Fleet
	// Reviser puts earlier specifications in force; nil: none can be.
	Reviser Reviser
	// Token is what callers prove themselves with.
	Token   string
	Version string
	Logger  *slog.Logger     // default: discard
	Clock   func() time.Time // default: time.Now
	// Ready says why the control plane cannot work yet; nil: it always can.
	Ready func(ctx context.Context) error
	// Registry takes the metrics and is what /metrics shows; default: a new one.
	Registry *prometheus.Registry
	// Hosts are names, beside localhost and IP addresses, that the server is
	// reached by.
	Hosts []string
	// Pages is the dashboard; nil: there is none, and no sessions.
	Pages Pages
	// Forward is how others that carry sandboxes of the fleet are reached; nil:
	// there are none.
	Forward *Forwarding
}

// Server is the HTTP API. It is an http.Handler, and can serve by itself.
type Server struct {
	Config
	token   [sha256.Size]byte          // the admin's; sessions are signed with it
	tokens  map[Role][sha256.Size]byte // who each is
	handler http.Handler
	hub     *hub
	roster  *roster
	undo    func()        // of the metrics
	slots   chan struct{} // of streams
	beat    time.Duration // heartbeat, but for tests
	codes   codes

	base    context.Context // ends when streams must
	stop    context.CancelFunc
	mu      sync.Mutex
	http    *http.Server
	streams sync.WaitGroup
	closed  bool

	gathering sync.Mutex // evidence: one at a time
}

// New returns a Server; Shutdown frees it.
func New(c Config) (*Server, error) {
	switch {
	case c.Store == nil || c.Archive == nil || c.Engine == nil || c.Fleet == nil:
		return nil, errors.New("server: Store, Archive, Engine and Fleet are needed")
	case c.Token == "":
		return nil, errors.New("server: a token is needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	s := &Server{Config: c, token: digestOf(c.Token), tokens: tokensOf(c.Token), slots: make(chan struct{}, maxStreams), beat: heartbeat}
	s.base, s.stop = context.WithCancel(context.Background())
	s.roster = newRoster(s)
	mux, _, err := s.routes()
	if err == nil {
		s.undo, err = registerFleet(c)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("server: %w", err)
	}
	s.handler = s.guard(s.forwarding(mux))
	s.hub = newHub(s.base, c.Store)
	return s, nil
}

// digestOf is what is compared of a token, in constant time.
func digestOf(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve answers requests from l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(net.ErrClosed, l.Close())
	}
	if s.http == nil {
		s.http = &http.Server{
			Handler:           s,
			ReadHeaderTimeout: readTimeout,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		}
	}
	h := s.http
	s.mu.Unlock()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown ends every stream, lets other requests finish until ctx ends, and
// frees the server. It may be called more than once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	h := s.http
	s.mu.Unlock()
	s.stop()
	var err error
	if h != nil {
		if err = h.Shutdown(ctx); err != nil {
			err = errors.Join(err, h.Close())
		}
	}
	done := make(chan struct{})
	go func() {
		s.streams.Wait()
		s.hub.wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	s.roster.stop()
	s.undo()
	return err
}

// stream admits a stream: ctx ends with the request or with the server.
func (s *Server) stream(ctx context.Context) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, fmt.Errorf("the server is stopping: %w", fleet.ErrUnavailable)
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return nil, nil, fmt.Errorf("%d streams are open already: %w", maxStreams, fleet.ErrUnavailable)
	}
	s.streams.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.base, cancel)
	return ctx, func() {
		stop()
		cancel()
		<-s.slots
		s.streams.Done()
	}, nil
}
