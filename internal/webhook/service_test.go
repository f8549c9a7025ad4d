package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type trips func(*http.Request) (*http.Response, error)

func (f trips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func submit(t *testing.T, s *memory.Store, n int, url string) {
	t.Helper()
	for range n {
		got, err := s.Submit(t.Context(), []fleet.Task{{Spec: fleet.TaskSpec{Pool: "p", Command: []string{"x"}, Webhook: url}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Cancel(t.Context(), got[0].ID, "ann", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeadReceiverHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		defer store.Close()
		submit(t, store, 100, "https://dead.test/")
		submit(t, store, 5, "https://alive.test/")
		var alive, at atomic.Int64
		begin := time.Now()
		s := New(Options{Tasks: store, Transport: trips(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "dead.test" {
				return nil, errors.New("connection refused")
			}
			alive.Add(1)
			at.Store(int64(time.Since(begin)))
			return &http.Response{StatusCode: 204, Body: http.NoBody, Request: r}, nil
		})})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		time.Sleep(30 * time.Second)
		if alive.Load() != 5 || time.Duration(at.Load()) > 15*time.Second {
			t.Errorf("%d of 5 delivered beside a dead receiver, the last after %s", alive.Load(), time.Duration(at.Load()))
		}
		time.Sleep(25 * time.Minute)
		stop()
		<-done
		if p, _ := store.PendingWebhooks(context.Background(), 1000); len(p) != 0 || len(s.pending) > 1 {
			t.Errorf("%d pending in the store, %d in memory, after all was given up", len(p), len(s.pending))
		}
	})
}

// recorded keeps what WebhookDone was told.
type recorded struct {
	*memory.Store
	problem atomic.Value
}

func (r *recorded) WebhookDone(ctx context.Context, id fleet.TaskID, problem string) error {
	r.problem.Store(problem)
	return r.Store.WebhookDone(ctx, id, problem)
}

func TestRefusedAddresses(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect to another host was followed") }))
	defer other.Close()
	redirects := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	defer redirects.Close()
	for url, want := range map[string]string{
		redirects.URL + "/?token=hunter2":                "redirects to another host",
		"http://169.254.169.254/latest?token=hunter2":    "metadata",
		"http://[fd00:ec2::254]/?token=hunter2":          "metadata",
		"http://[::ffff:169.254.169.254]/?token=hunter2": "metadata",
		"http://%zz/?token=hunter2":                      "address",
	} {
		t.Run(url, func(t *testing.T) {
			store := memory.New(memory.Options{})
			defer store.Close()
			submit(t, store, 1, url)
			rec := &recorded{Store: store}
			s := New(Options{Tasks: rec})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = s.Run(ctx) }()
			for rec.problem.Load() == nil {
				time.Sleep(time.Millisecond)
			}
			stop()
			<-done
			p := fmt.Sprint(rec.problem.Load())
			if !strings.Contains(p, want) || strings.Contains(p, "hunter2") {
				t.Errorf("problem %q, want %q and no token", p, want)
			}
		})
	}
}
