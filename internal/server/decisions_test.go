package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

// journaled appends n decisions, one a minute up to now, of size bytes each.
func (r *rig) journaled(n, size int) []fleet.DecisionRecord {
	r.t.Helper()
	policy := []byte(`{"max":5,"first":"<default>"}`)
	large := fmt.Appendf(nil, `{"queues":"%s"}`, strings.Repeat("x", size))
	var all []fleet.DecisionRecord
	for i := range n {
		d := fleet.DecisionRecord{
			At: time.Now().UTC().Add(time.Duration(i-n+1) * time.Minute), Changed: i%2 == 0, Version: 3,
			Observation: large, Plan: []byte(`{"sentence":"a<b"}`), State: []byte("{}"),
		}
		var err error
		if d.Seq, err = r.store.AppendDecision(r.t.Context(), d, policy); err != nil {
			r.t.Fatal(err)
		}
		d.Policy = fleet.PolicyDigest(policy)
		all = append(all, d)
	}
	return all
}

func TestDecisionsArePaged(t *testing.T) {
	r := newRig(t)
	if got := call[v1alpha1.DecisionList](r, "GET", "/v1/decisions", nil, 200); got.Decisions == nil || len(got.Decisions) > 0 || got.After != 0 {
		t.Errorf("of an empty journal: %+v", got)
	}
	all := r.journaled(150, 10)
	c := clientOf(t, r)
	var seqs []int64
	q := client.DecisionQuery{Limit: 70}
	for pages := 1; ; pages++ {
		page, err := c.Decisions(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Decisions {
			seqs = append(seqs, d.Seq)
			want := all[len(seqs)-1]
			if got := d.Record(); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
		if page.After == 0 {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		q.After = page.After
	}
	if len(seqs) != 150 {
		t.Errorf("%d decisions of 150", len(seqs))
	}
	changed := call[v1alpha1.DecisionList](r, "GET", "/v1/decisions?changed=true&limit=1000", nil, 200)
	if len(changed.Decisions) != 75 {
		t.Errorf("%d changed", len(changed.Decisions))
	}
	some, err := c.Decisions(t.Context(), client.DecisionQuery{Since: all[20].At, Until: all[29].At})
	if err != nil || len(some.Decisions) != 10 || some.Decisions[0].Seq != all[20].Seq {
		t.Errorf("%d in ten minutes, %v", len(some.Decisions), err)
	}
	if got := call[v1alpha1.DecisionList](r, "GET", "/v1/decisions?since=5m30s&until=2m30s", nil, 200); len(got.Decisions) != 3 {
		t.Errorf("%d from 5.5 to 2.5 minutes ago", len(got.Decisions))
	}
	p, err := c.Policy(t.Context(), all[0].Policy)
	if err != nil || fleet.PolicyDigest(p.Policy) != all[0].Policy || p.Digest != all[0].Policy {
		t.Errorf("policy %s, %v", p.Policy, err)
	}
}

// TestPageOfDecisionsIsBounded: large ones come in small pages, at least one
// at a time.
func TestPageOfDecisionsIsBounded(t *testing.T) {
	r := newRig(t)
	r.journaled(5, 3<<20)
	got := call[v1alpha1.DecisionList](r, "GET", "/v1/decisions", nil, 200)
	if len(got.Decisions) != 2 || got.After != got.Decisions[1].Seq {
		t.Errorf("%d of 3 MiB in a page, after %d", len(got.Decisions), got.After)
	}
	r = newRig(t)
	r.journaled(2, 9<<20)
	got = call[v1alpha1.DecisionList](r, "GET", "/v1/decisions", nil, 200)
	if len(got.Decisions) != 1 || got.After != 1 {
		t.Errorf("%d of 9 MiB in a page, after %d", len(got.Decisions), got.After)
	}
	if got = call[v1alpha1.DecisionList](r, "GET", "/v1/decisions?after=1", nil, 200); len(got.Decisions) != 1 || got.After != 0 {
		t.Errorf("%d in the last page, after %d", len(got.Decisions), got.After)
	}
}

func TestDecisionsAskedForWrongly(t *testing.T) {
	r := newRig(t)
	for query, want := range map[string]string{
		"since=yesterday": "query.since", "until=soon": "query.until", "since=1h&until=2h": "query.until",
		"limit=1001": "query.limit", "after=-1": "query.after", "changed=maybe": "query.changed",
	} {
		p := r.problem(r.request("GET", "/v1/decisions?"+query, nil), http.StatusUnprocessableEntity)
		if len(p.Errors) != 1 || p.Errors[0].Location != want {
			t.Errorf("%s: %+v", query, p)
		}
	}
	r.problem(r.request("GET", "/v1/policies/x", nil), http.StatusUnprocessableEntity)
	p := r.problem(r.request("GET", "/v1/policies/"+strings.Repeat("0", 64), nil), http.StatusNotFound)
	if !strings.Contains(p.Detail, "no decision on record was made under policy 000") {
		t.Error(p.Detail)
	}
}

func clientOf(t *testing.T, r *rig) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Server: r.url, Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
