package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	kubetest "muster.dev/muster/test/kube"
)

// storm is an API server in bad weather: of the requests that write, and of
// those that read once, a share is refused as busy servers and concurrent
// writers would have it.
type storm struct {
	share   atomic.Uint64 // of 100
	refused atomic.Int64
	writes  atomic.Int64 // that came through, but for the leader's lease
	mu      sync.Mutex
	rng     *rand.Rand
	newest  []string // of the writes
}

// newStorm serves in front of a cluster and returns a kubeconfig that leads
// there with the rights of config.
func newStorm(t testing.TB, config *rest.Config, seed uint64) (*storm, string) {
	t.Helper()
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &storm{rng: rand.New(rand.NewPCG(seed, 1))}
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		write := r.Method != http.MethodGet
		if r.URL.Query().Get("watch") == "" && !strings.Contains(r.URL.Path, "/leases/") && s.refuses() {
			s.refuse(w, write)
			return
		}
		if write && !strings.Contains(r.URL.Path, "/leases/") {
			s.wrote(r)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return s, kubeconfigFor(t, server.URL)
}

func (s *storm) wrote(r *http.Request) {
	s.writes.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = append(s.newest[max(0, len(s.newest)-9):], r.Method+" "+r.URL.Path)
}

func (s *storm) last() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.newest)
}

func (s *storm) refuses() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Uint64N(100) < s.share.Load()
}

func (s *storm) refuse(w http.ResponseWriter, write bool) {
	s.refused.Add(1)
	s.mu.Lock()
	kind := s.rng.IntN(3)
	s.mu.Unlock()
	code, reason := http.StatusTooManyRequests, "TooManyRequests"
	switch {
	case kind == 0 && write:
		code, reason = http.StatusConflict, "Conflict"
	case kind == 1:
		code, reason = http.StatusServiceUnavailable, "ServiceUnavailable"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"bad weather"}`, reason, code)
}

func kubeconfigFor(t testing.TB, server string) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["storm"] = &clientcmdapi.Cluster{Server: server}
	c.AuthInfos["storm"] = &clientcmdapi.AuthInfo{}
	c.Contexts["storm"] = &clientcmdapi.Context{Cluster: "storm", AuthInfo: "storm"}
	c.CurrentContext = "storm"
	b, err := clientcmd.Write(*c)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A third of all requests is refused for a while: nothing is lost, nothing is
// done twice.
func TestConflictsAndThrottling(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{inProcess: true, group: kubetest.GroupOptions{Min: 1, ScaleDown: 2 * time.Second}})
	s, kubeconfig := newStorm(t, w.c.Config, 7)
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 2, max: 40}}"))
	p := w.plane("serve", kubeconfig).start()
	p.ready("agents")
	s.share.Store(33)
	p.submit("agents", "storm", 40, "sleep 0.3")
	for _, v := range p.succeed("agents", 40, 4*time.Minute) {
		if v.Attempt != 1 {
			t.Errorf("task %s took %d attempts: %s", v.Name, v.Attempt, v.Message)
		}
	}
	if s.refused.Load() < 20 {
		t.Errorf("only %d requests were refused; the storm was none", s.refused.Load())
	}
	created, _, _ := w.pods.counts()
	if twice := w.pods.twice(); len(twice) > 0 || created > 80 {
		t.Errorf("%d sandboxes created for 40 tasks, twice: %v", created, twice)
	}
	s.share.Store(0)
	w.remove("agents")
	w.nothingLeft()
}

// A steady fleet writes nothing to the API server.
func TestSteadyFleetWritesNothing(t *testing.T) {
	// By itself: beside others it is not always steady within its time, for a
	// reason that is not known yet (its holds are deleted again and again).
	w := setUp(t, options{inProcess: true, group: kubetest.GroupOptions{Min: 3}})
	s, kubeconfig := newStorm(t, w.c.Config, 1)
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 20, max: 20}}"))
	p := w.plane("serve", kubeconfig).start()
	p.ready("agents")
	last, since := int64(-1), time.Now()
	w.until(2*time.Minute, "ten seconds without a write but for the lease", func() error {
		if n := s.writes.Load(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) < 10*time.Second {
			return fmt.Errorf("%d writes in all, the last %s ago: %v", last, time.Since(since).Round(time.Second), s.last())
		}
		return nil
	})
	if last < 20 {
		t.Errorf("%d writes for twenty sandboxes: they were not counted", last)
	}
}
