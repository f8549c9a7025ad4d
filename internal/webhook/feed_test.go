package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/memory"
)

// receivers are what addresses were told: "HOST KIND SEQ", and ids.
type receivers struct {
	mu   sync.Mutex
	got  []string
	ids  map[string]bool
	down string // a host that refuses
}

func (r *receivers) RoundTrip(q *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	var e struct {
		ID, Type, Subject string
		Data              fleet.Event
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	status := 204
	if q.URL.Host == r.down {
		status = 503
	} else {
		r.got = append(r.got, fmt.Sprintf("%s %s %s %d", q.URL.Host, e.Type, e.Subject, e.Data.Seq))
		r.ids[e.ID] = true
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("")), Header: http.Header{}}, nil
}

func (r *receivers) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.got)
	slices.Sort(out)
	return out
}

// telling runs a feed and what delivers its notices, until stop.
func telling(store *memory.Store, r *receivers, to func() []Endpoint) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	f := NewFeed(FeedOptions{Fleet: "agents", Journal: store, Endpoints: to})
	s := New(Options{Tasks: store, Notices: func() Notices { return Several{f} }, Transport: r, Attempts: 1000})
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.Run(ctx) })
	wg.Go(func() { _ = s.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func happened(t *testing.T, store *memory.Store, kinds ...string) {
	t.Helper()
	for _, k := range kinds {
		if _, err := store.AppendEvents(t.Context(), []fleet.Event{{At: time.Now(), Kind: k, Layer: "sandboxes", Pool: "default", Reason: k}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFeed: each endpoint is told of the kinds it asked for, from when it is
// named on, once; what one that is down has missed it hears after a restart.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		defer store.Close()
		r := &receivers{ids: map[string]bool{}, down: "b.test"}
		to := []Endpoint{{"https://a.test/x", []string{"scale_out", "scale_in"}}, {"https://b.test/x", []string{"scale_out"}}}
		happened(t, store, "scale_out") // before anybody was named
		stop := telling(store, r, func() []Endpoint { return to })
		synctest.Wait()
		happened(t, store, "scale_out", "hold", "scale_in")
		time.Sleep(time.Minute)
		want := []string{"a.test dev.muster.fleet.scale_in sandboxes/default 4", "a.test dev.muster.fleet.scale_out sandboxes/default 2"}
		if got := r.told(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		stop()
		r.mu.Lock()
		r.down = ""
		r.mu.Unlock()
		happened(t, store, "scale_in") // while nobody runs
		stop = telling(store, r, func() []Endpoint { return to })
		time.Sleep(time.Minute)
		stop()
		for _, w := range []string{"b.test dev.muster.fleet.scale_out sandboxes/default 2", "a.test dev.muster.fleet.scale_in sandboxes/default 5"} {
			if got := r.told(); !slices.Contains(got, w) {
				t.Errorf("told %q, and not %q", got, w)
			}
		}
		if len(r.ids) != 4 { // a repetition has the id of the first
			t.Errorf("%d ids, want 4: %v", len(r.ids), r.ids)
		}
		told := len(r.told())
		stop = telling(store, r, func() []Endpoint { return to })
		time.Sleep(time.Minute)
		stop()
		if n := len(r.told()); n != told {
			t.Errorf("%d were told again after everybody had been told", n-told)
		}
	})
}

// TestFeedOfNobody writes nothing, and who is named later does not hear of what
// has been.
func TestFeedOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		defer store.Close()
		r := &receivers{ids: map[string]bool{}}
		var mu sync.Mutex
		var to []Endpoint
		name := func(e ...Endpoint) { mu.Lock(); to = e; mu.Unlock() }
		stop := telling(store, r, func() []Endpoint { mu.Lock(); defer mu.Unlock(); return to })
		defer stop()
		happened(t, store, "scale_out")
		time.Sleep(time.Minute)
		if b, err := store.Setting(t.Context(), settingFeed); err != nil || len(b) > 0 {
			t.Errorf("%q is kept, %v", b, err)
		}
		a := Endpoint{"https://a.test/x", []string{"scale_out"}}
		name(a)
		happened(t, store, "fleet_changed")
		synctest.Wait()
		happened(t, store, "scale_out")
		time.Sleep(time.Minute)
		name()
		happened(t, store, "fleet_changed")
		synctest.Wait()
		happened(t, store, "scale_out")
		time.Sleep(time.Minute)
		name(a)
		happened(t, store, "fleet_changed")
		synctest.Wait()
		happened(t, store, "scale_out")
		time.Sleep(time.Minute)
		want := []string{"a.test dev.muster.fleet.scale_out sandboxes/default 3", "a.test dev.muster.fleet.scale_out sandboxes/default 7"}
		if got := r.told(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}
