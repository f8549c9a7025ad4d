package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// FleetsConfig is what Fleets is made of.
type FleetsConfig struct {
	Token   string
	Version string
	Hosts   []string // see Config.Hosts
	// Ready says why this process cannot do its part yet; nil: it can. One that
	// stands by can.
	Ready func(ctx context.Context) error
	// Standby says why nothing is served here now, and another process is to be
	// asked; empty: it is.
	Standby func() string
	Logger  *slog.Logger // default: discard
	Pages   Pages        // see Config.Pages
}

// Fleets is the API of several fleets at one address: each below
// /fleets/NAMESPACE/NAME, and one that is alone also at the root. It is an
// http.Handler.
type Fleets struct {
	c    FleetsConfig
	gate *Server // only its guard is used
	http http.Handler
	own  *prometheus.Registry // of the process

	mu     sync.RWMutex
	fleets map[string]*Server // by namespace/name
	closed map[*Server]bool   // takes nothing new
}

// NewFleets returns Fleets without any.
func NewFleets(c FleetsConfig) (*Fleets, error) {
	if c.Token == "" {
		return nil, errors.New("server: a token is needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleets{c: c, gate: newGate(c), fleets: map[string]*Server{}, closed: map[*Server]bool{}}
	own, err := f.ofTheProcess()
	if err != nil {
		return nil, err
	}
	f.own = own
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, health{"ok"}) })
	mux.HandleFunc("GET /readyz", f.ready)
	mux.HandleFunc("GET /fleets", f.list)
	mux.HandleFunc("GET /metrics", f.metrics)
	mux.HandleFunc("/fleets/{namespace}/{name}/", f.one)
	mux.HandleFunc("/", f.only)
	f.http = f.gate.guard(mux)
	return f, nil
}

// newGate is a server that only guards.
func newGate(c FleetsConfig) *Server {
	return &Server{Config: Config{Token: c.Token, Hosts: c.Hosts, Logger: c.Logger, Pages: c.Pages}, token: digestOf(c.Token), tokens: tokensOf(c.Token)}
}

// ServeHTTP answers one request. Those for a fleet pass its own guard.
func (f *Fleets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.http.ServeHTTP(w, r)
}

// Add serves a fleet; one of the same name is replaced. path is where.
func (f *Fleets) Add(namespace, name string, s *Server) (path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fleets[namespace+"/"+name] = s
	return FleetPath(namespace, name)
}

// Close lets a fleet be read only: it is on its way out.
func (f *Fleets) Close(namespace, name string, s *Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fleets[namespace+"/"+name] == s {
		f.closed[s] = true
	}
}

// Remove ends what Add began, unless another one took its place.
func (f *Fleets) Remove(namespace, name string, s *Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.closed, s)
	if f.fleets[namespace+"/"+name] == s {
		delete(f.fleets, namespace+"/"+name)
	}
}

// FleetPath is where the API of a fleet is.
func FleetPath(namespace, name string) string {
	return "/fleets/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
}

// names lists the fleets in order.
func (f *Fleets) names() []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var out []string
	for n := range f.fleets {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// pass lets a fleet answer.
func (f *Fleets) pass(w http.ResponseWriter, r *http.Request, s *Server, h http.Handler) {
	f.mu.RLock()
	closed := f.closed[s]
	f.mu.RUnlock()
	if closed && r.Method != http.MethodGet && r.Method != http.MethodHead {
		writeProblem(w, refuse(http.StatusConflict, "the fleet is deleted: running tasks may end, and nothing new is taken"))
		return
	}
	h.ServeHTTP(w, r)
}

func (f *Fleets) find(name string) *Server {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.fleets[name]
}

// standby answers where another process is to be asked.
func (f *Fleets) standby(w http.ResponseWriter) bool {
	if f.c.Standby == nil {
		return false
	}
	why := f.c.Standby()
	if why != "" {
		writeProblem(w, &statusError{status: http.StatusServiceUnavailable, retry: 2, text: why})
	}
	return why != ""
}

func (f *Fleets) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if f.c.Ready != nil {
		if err := f.c.Ready(ctx); err != nil {
			writeProblem(w, &statusError{status: http.StatusServiceUnavailable, retry: 1, text: err.Error()})
			return
		}
	}
	writeJSON(w, health{"ok"})
}

// fleetEntry is one fleet in the list of all.
type fleetEntry struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Path      string `json:"path"`
}

func (f *Fleets) list(w http.ResponseWriter, _ *http.Request) {
	if f.standby(w) {
		return
	}
	out := struct {
		Fleets []fleetEntry `json:"fleets"`
	}{[]fleetEntry{}}
	for _, n := range f.names() {
		namespace, name, _ := strings.Cut(n, "/")
		out.Fleets = append(out.Fleets, fleetEntry{namespace, name, FleetPath(namespace, name)})
	}
	writeJSON(w, out)
}

// one passes a request on to the fleet that its path names.
func (f *Fleets) one(w http.ResponseWriter, r *http.Request) {
	if f.standby(w) {
		return
	}
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	s := f.find(namespace + "/" + name)
	if s == nil {
		writeProblem(w, refuse(http.StatusNotFound, "there is no fleet %s in namespace %s; %s", shorten(name), shorten(namespace), f.choice()))
		return
	}
	f.pass(w, r, s, http.StripPrefix(FleetPath(namespace, name), s))
}

// only passes a request on to the fleet that is alone.
func (f *Fleets) only(w http.ResponseWriter, r *http.Request) {
	if f.standby(w) {
		return
	}
	names := f.names()
	switch len(names) {
	case 0:
		writeProblem(w, &statusError{status: http.StatusServiceUnavailable, retry: 1, text: "there is no fleet yet"})
		return
	case 1:
		if s := f.find(names[0]); s != nil {
			f.pass(w, r, s, s)
			return
		}
	}
	writeProblem(w, refuse(http.StatusNotFound, "there are several fleets here; %s", f.choice()))
}

// choice says what could have been asked for.
func (f *Fleets) choice() string {
	names := f.names()
	if len(names) == 0 {
		return "there is none yet"
	}
	const most = 10
	more := ""
	if len(names) > most {
		names, more = names[:most], ", and more"
	}
	return "name one (--fleet, $MUSTER_FLEET, /fleets/NAMESPACE/NAME/…): " + strings.Join(names, ", ") + more
}

// metrics shows those of all fleets, each with labels that name it.
func (f *Fleets) metrics(w http.ResponseWriter, r *http.Request) {
	all := prometheus.Gatherers{f.own}
	for _, n := range f.names() {
		if s := f.find(n); s != nil {
			namespace, name, _ := strings.Cut(n, "/")
			all = append(all, labelled{s.Registry, namespace, name})
		}
	}
	promhttp.HandlerFor(all, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}).ServeHTTP(w, r)
}

// ofTheProcess are the metrics that are there without a fleet, too.
func (f *Fleets) ofTheProcess() (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	_, err := register(r, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(f.c.Version), leader(func() bool { return f.c.Standby == nil || f.c.Standby() == "" }))
	return r, err
}

// labelled adds a fleet's name to its metrics. Those of the process are the
// same for all fleets and are shown by Fleets itself.
type labelled struct {
	prometheus.Gatherer
	namespace, name string
}

// ofProcess tells the metrics of a process from those of a fleet.
func ofProcess(name string) bool {
	return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || name == "muster_build_info" || name == "muster_leader"
}

// Gather implements prometheus.Gatherer.
func (l labelled) Gather() ([]*dto.MetricFamily, error) {
	families, err := l.Gatherer.Gather()
	out := families[:0]
	for _, mf := range families {
		if ofProcess(mf.GetName()) {
			continue
		}
		for _, m := range mf.GetMetric() {
			m.Label = append(slices.Clone(m.Label), label("namespace", l.namespace), label("fleet", l.name))
			slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
		}
		out = append(out, mf)
	}
	return out, err
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
