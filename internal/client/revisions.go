package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"muster.dev/muster/api/v1alpha1"
)

// Revisions returns one page of the specifications that the fleet had, newest
// first; Before of the answer, where it is not 0, leads to the next one. before
// 0 begins with the newest; limit 0 is the server's.
func (c *Client) Revisions(ctx context.Context, before int64, limit int) (v1alpha1.RevisionList, error) {
	ask := url.Values{}
	if before > 0 {
		ask.Set("before", strconv.FormatInt(before, 10))
	}
	if limit > 0 {
		ask.Set("limit", strconv.Itoa(limit))
	}
	out := v1alpha1.RevisionList{Revisions: []v1alpha1.RevisionView{}}
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteRevisions, ask, nil, &out)
	return out, err
}

// Revision returns one specification that the fleet had.
func (c *Client) Revision(ctx context.Context, n int64) (v1alpha1.RevisionDetail, error) {
	var out v1alpha1.RevisionDetail
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteRevision, strconv.FormatInt(n, 10)), nil, nil, &out)
	return out, err
}

// Rollback puts an earlier specification in force, or says what that would
// change.
func (c *Client) Rollback(ctx context.Context, r v1alpha1.RollbackRequest) (v1alpha1.RollbackView, error) {
	var out v1alpha1.RollbackView
	err := c.call(ctx, http.MethodPost, v1alpha1.RouteRollback, nil, r, &out)
	return out, err
}
