package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

// answers is a transport that plays a server.
type answers struct {
	mu     sync.Mutex
	status []int // one a call; the last one repeats
	header http.Header
	got    []*http.Request
	bodies []string
	err    error
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, _ := io.ReadAll(r.Body)
	a.got, a.bodies = append(a.got, r), append(a.bodies, string(b))
	if a.err != nil {
		return nil, a.err
	}
	st := a.status[min(len(a.got), len(a.status))-1]
	return &http.Response{StatusCode: st, Status: http.StatusText(st), Header: a.header, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func (a *answers) calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got)
}

func settled(t *testing.T, s *memory.Store) fleet.TaskID {
	t.Helper()
	got, err := s.Submit(t.Context(), []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p", Command: []string{"x"}, Webhook: "https://hooks.test/x", Env: map[string]string{"K": "private-value"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cancel(t.Context(), got[0].ID, "ann", time.Now()); err != nil {
		t.Fatal(err)
	}
	return got[0].ID
}

func TestDelivery(t *testing.T) {
	for _, c := range []struct {
		name   string
		a      *answers
		calls  int
		within time.Duration
	}{
		{"at once", &answers{status: []int{204}}, 1, 3 * time.Second},
		{"after two failures", &answers{status: []int{500, 503, 200}}, 3, 10 * time.Second},
		{"refused for good", &answers{status: []int{410}}, 1, 3 * time.Second},
		{"given up", &answers{status: []int{500}}, 10, 30 * time.Minute},
		{"unreachable", &answers{err: errors.New("no route")}, 10, 30 * time.Minute},
		{"told to wait", &answers{status: []int{429, 200}, header: http.Header{"Retry-After": {"60"}}}, 2, 70 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New(memory.Options{})
				defer store.Close()
				id := settled(t, store)
				s := New(Options{Tasks: store, Transport: c.a, Key: key("k")})
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); _ = s.Run(ctx) }()
				time.Sleep(c.within)
				stop()
				<-done
				if n := c.a.calls(); n != c.calls {
					t.Errorf("%d calls, want %d", n, c.calls)
				}
				if p, _ := store.PendingWebhooks(context.Background(), 10); len(p) != 0 {
					t.Errorf("task %s is still pending", id)
				}
			})
		})
	}
}

func TestNotDeliveredBeforeAStopIsDeliveredAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		defer store.Close()
		settled(t, store)
		for _, a := range []*answers{{err: errors.New("down")}, {status: []int{200}}} {
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			s := New(Options{Tasks: store, Transport: a})
			go func() { defer close(done); _ = s.Run(ctx) }()
			time.Sleep(time.Second)
			stop()
			<-done
			if a.calls() == 0 {
				t.Error("not tried")
			}
		}
		if p, _ := store.PendingWebhooks(context.Background(), 10); len(p) != 0 {
			t.Error("still pending after a delivery")
		}
	})
}

func TestEventAndSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		defer store.Close()
		id := settled(t, store)
		a := &answers{status: []int{200}}
		s := New(Options{Tasks: store, Transport: a, Key: key("k"), UserAgent: "muster/test"})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		time.Sleep(time.Second)
		stop()
		<-done
		var e struct {
			SpecVersion, Type, Subject string
			Data                       struct {
				ID    fleet.TaskID
				State string
			}
		}
		if err := json.Unmarshal([]byte(a.bodies[0]), &e); err != nil {
			t.Fatal(err)
		}
		if e.SpecVersion != "1.0" || e.Type != "dev.muster.task.settled" || e.Data.ID != id || e.Data.State != "cancelled" {
			t.Errorf("event %+v", e)
		}
		if strings.Contains(a.bodies[0], "private-value") {
			t.Error("the event holds the task's environment")
		}
		h := a.got[0].Header
		if want := Sign([]byte("k"), time.Now().Add(-time.Second), []byte(a.bodies[0])); h.Get("Muster-Signature") != want {
			t.Errorf("signature %q, want %q", h.Get("Muster-Signature"), want)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for h, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "99999999999": 15 * time.Minute, "9999": 15 * time.Minute, "-1": 0,
		"Thu, 01 Jan 2026 00:01:00 GMT": time.Minute, "x": 0} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", h, got, want)
		}
	}
}

// key is a key that never changes.
func key(k string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(k), nil }
}

// TestKeyIsMissing: nothing goes out unsigned that is to be signed; once the
// key is there it is delivered.
func TestKeyIsMissing(t *testing.T) {
	for name, none := range map[string]error{"missing": fleet.ErrNotFound, "empty": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New(memory.Options{})
				defer store.Close()
				settled(t, store)
				a, there := &answers{status: []int{200}}, atomic.Bool{}
				s := New(Options{Tasks: store, Transport: a, Key: func(context.Context) ([]byte, error) {
					if there.Load() {
						return []byte("k"), nil
					}
					return nil, none
				}})
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); _ = s.Run(ctx) }()
				time.Sleep(5 * time.Second)
				if a.calls() > 0 {
					t.Error("sent without a key")
				}
				there.Store(true)
				time.Sleep(time.Minute)
				stop()
				<-done
				if a.calls() != 1 || a.got[0].Header.Get("Muster-Signature") == "" {
					t.Errorf("sent %d times with the key", a.calls())
				}
			})
		})
	}
}
