package webhook

import (
	"context"
	"encoding/json"
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

// board keeps notices.
type board struct {
	mu  sync.Mutex
	all []fleet.Notice
}

func (b *board) Notices() []fleet.Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all)
}

func (b *board) NoticeDone(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = slices.DeleteFunc(b.all, func(n fleet.Notice) bool { return n.ID == id })
}

// A notice is delivered signed, is tried again with the same id while the
// receiver fails, and is gone once it was taken.
func TestNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Options{})
		defer store.Close()
		at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
		b := &board{all: []fleet.Notice{{
			ID: "agents/budget/1", Type: "dev.muster.budget.warning", Subject: "spec.cost.budget.perDay", At: at, URL: "https://pager.test/x?key=k",
			Data: fleet.BudgetView{Period: fleet.BudgetDay, LimitMicroUSD: 500e6, SpentMicroUSD: 412e6, Sentence: "$412.00 of $500.00 spent today"},
		}}}
		var bodies, signed []string
		s := New(Options{
			Tasks: store, Notices: func() Notices { return b }, Key: func(context.Context) ([]byte, error) { return []byte("k"), nil },
			Transport: trips(func(r *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				bodies, signed = append(bodies, string(body)), append(signed, r.Header.Get("Muster-Signature"))
				status := 204
				if len(bodies) < 3 {
					status = 503
				}
				return &http.Response{StatusCode: status, Body: http.NoBody, Request: r}, nil
			}),
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		time.Sleep(time.Minute)
		stop()
		<-done
		if len(bodies) != 3 || bodies[0] != bodies[2] || len(b.Notices()) != 0 {
			t.Fatalf("%d attempts, %d left: %q", len(bodies), len(b.Notices()), bodies)
		}
		var e struct {
			SpecVersion, ID, Type, Subject string
			Data                           fleet.BudgetView
		}
		if err := json.Unmarshal([]byte(bodies[0]), &e); err != nil {
			t.Fatal(err)
		}
		if e.SpecVersion != "1.0" || e.ID != "agents/budget/1" || e.Type != "dev.muster.budget.warning" || e.Data.SpentMicroUSD != 412e6 {
			t.Errorf("%+v", e)
		}
		if !strings.HasPrefix(signed[0], "t=") || !strings.Contains(signed[0], ",v1=") {
			t.Errorf("signed %q", signed[0])
		}
	})
}
