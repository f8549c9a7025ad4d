package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"muster.dev/muster/api/v1alpha1"
)

// DecisionQuery selects journaled decisions; zero fields select all.
type DecisionQuery struct {
	After   int64
	Since   time.Time
	Until   time.Time
	Changed bool // only those that changed something or said something new
	Limit   int  // of one page; the server may give less
}

func (q DecisionQuery) values() url.Values {
	v := url.Values{}
	if q.After > 0 {
		v.Set("after", strconv.FormatInt(q.After, 10))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.UTC().Format(time.RFC3339Nano))
	}
	if q.Changed {
		v.Set("changed", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// Decisions returns one page of decisions, oldest first; After of the answer,
// where it is not 0, leads to the next one.
func (c *Client) Decisions(ctx context.Context, q DecisionQuery) (v1alpha1.DecisionList, error) {
	out := v1alpha1.DecisionList{Decisions: []v1alpha1.DecisionView{}}
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteDecisions, q.values(), nil, &out)
	return out, err
}

// Policy returns a policy that decisions were made under, byte for byte as it
// was journaled.
func (c *Client) Policy(ctx context.Context, digest string) (v1alpha1.PolicyView, error) {
	var out v1alpha1.PolicyView
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RoutePolicy, digest), nil, nil, &out)
	return out, err
}
