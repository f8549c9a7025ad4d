package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Submit submits tasks, all or none. It is tried once: a lost connection
// leaves open whether the tasks were accepted, unless every one of them has an
// idempotency key; then it is tried again until the server answers.
func (c *Client) Submit(ctx context.Context, tasks []v1alpha1.TaskSpec) ([]v1alpha1.TaskView, error) {
	var out v1alpha1.TaskList
	submit := func() error {
		return c.call(ctx, http.MethodPost, v1alpha1.RouteTasks, nil, v1alpha1.SubmitRequest{Tasks: tasks}, &out)
	}
	for _, t := range tasks {
		if t.IdempotencyKey == "" {
			return out.Tasks, submit()
		}
	}
	err := c.again(ctx, func(func()) error { return submit() })
	return out.Tasks, err
}

// TaskQuery selects tasks; zero fields select all.
type TaskQuery struct {
	States []string
	Labels []string // key=value
	Since  time.Time
	Before fleet.TaskID
	Limit  int
}

func (q TaskQuery) values() url.Values {
	v := url.Values{}
	for _, s := range q.States {
		v.Add("state", s)
	}
	for _, l := range q.Labels {
		v.Add("label", l)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Before != "" {
		v.Set("before", string(q.Before))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// Tasks lists tasks, newest first.
func (c *Client) Tasks(ctx context.Context, q TaskQuery) (v1alpha1.TaskList, error) {
	out := v1alpha1.TaskList{Tasks: []v1alpha1.TaskView{}}
	err := c.call(ctx, http.MethodGet, v1alpha1.RouteTasks, q.values(), nil, &out)
	return out, err
}

// Task returns one task.
func (c *Client) Task(ctx context.Context, id fleet.TaskID) (v1alpha1.TaskView, error) {
	var out v1alpha1.TaskView
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteTask, string(id)), nil, nil, &out)
	return out, err
}

// Cancel asks for the task's end and returns it as it is after.
func (c *Client) Cancel(ctx context.Context, id fleet.TaskID) (v1alpha1.TaskView, error) {
	var out v1alpha1.TaskView
	err := c.call(ctx, http.MethodPost, path(v1alpha1.RouteTaskCancel, string(id)), nil, nil, &out)
	return out, err
}

// Retry submits a new task of the same spec.
func (c *Client) Retry(ctx context.Context, id fleet.TaskID) (v1alpha1.TaskView, error) {
	var out v1alpha1.TaskView
	err := c.call(ctx, http.MethodPost, path(v1alpha1.RouteTaskRetry, string(id)), nil, nil, &out)
	return out, err
}

// pollFor is how long the server may hold one long poll.
const pollFor = 30 * time.Second

// Wait returns the task once it is final. It outlasts a restart of the server.
func (c *Client) Wait(ctx context.Context, id fleet.TaskID) (v1alpha1.TaskView, error) {
	var out v1alpha1.TaskView
	err := c.again(ctx, func(alive func()) error {
		for {
			v, err := c.poll(ctx, id)
			if err != nil {
				return err
			}
			alive()
			if v.Final() {
				out = v
				return nil
			}
		}
	})
	return out, err
}

func (c *Client) poll(ctx context.Context, id fleet.TaskID) (v1alpha1.TaskView, error) {
	var out v1alpha1.TaskView
	q := url.Values{"timeout": {pollFor.String()}}
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteTaskWait, string(id)), q, nil, &out)
	return out, err
}

// Explain says why the task waited.
func (c *Client) Explain(ctx context.Context, id fleet.TaskID) (v1alpha1.ExplanationView, error) {
	var out v1alpha1.ExplanationView
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteTaskExplain, string(id)), nil, nil, &out)
	return out, err
}

// Usage reads what a running task has used so far.
func (c *Client) Usage(ctx context.Context, id fleet.TaskID) (v1alpha1.UsageView, error) {
	var out v1alpha1.UsageView
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteTaskUsage, string(id)), nil, nil, &out)
	return out, err
}

// Patch opens the task's patch; the caller closes it.
func (c *Client) Patch(ctx context.Context, id fleet.TaskID) (io.ReadCloser, error) {
	return c.file(ctx, path(v1alpha1.RouteTaskPatch, string(id)))
}

// Artifacts lists what was collected.
func (c *Client) Artifacts(ctx context.Context, id fleet.TaskID) (v1alpha1.ArtifactList, error) {
	out := v1alpha1.ArtifactList{Artifacts: []fleet.Artifact{}}
	err := c.call(ctx, http.MethodGet, path(v1alpha1.RouteArtifacts, string(id)), nil, nil, &out)
	return out, err
}

// Artifact opens one collected file; the caller closes it.
func (c *Client) Artifact(ctx context.Context, id fleet.TaskID, name string) (io.ReadCloser, error) {
	return c.file(ctx, path(v1alpha1.RouteArtifact, string(id), name))
}

func (c *Client) file(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.open(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// resolveAmong is how many of the newest tasks a shortened id is sought in.
const resolveAmong = 10000

// Resolve turns what a user typed into a task id: a whole id, or a prefix or
// suffix (of at least three characters) of just one, or the name of just one.
func (c *Client) Resolve(ctx context.Context, typed string) (fleet.TaskID, error) {
	if fleet.ValidID("t", typed) {
		return fleet.TaskID(typed), nil
	}
	list, err := c.Tasks(ctx, TaskQuery{Limit: resolveAmong})
	if err != nil {
		return "", err
	}
	var byID, byName []string
	for _, t := range list.Tasks {
		id := string(t.ID)
		if len(typed) >= 3 && (strings.HasPrefix(id, typed) || strings.HasSuffix(id, typed)) {
			byID = append(byID, id)
		}
		if t.Name == typed {
			byName = append(byName, id)
		}
	}
	for _, found := range [][]string{byID, byName} {
		if len(found) == 1 {
			return fleet.TaskID(found[0]), nil
		}
	}
	if found := append(byID, byName...); len(found) > 0 {
		sort.Sort(sort.Reverse(sort.StringSlice(found)))
		shown := found[:min(5, len(found))]
		return "", &Error{
			Text: fmt.Sprintf("%q is %d tasks: %s", typed, len(found), strings.Join(shown, ", ")),
			Hint: "give more characters of the one you mean; the end of an id tells tasks apart best", Kind: ErrUsage,
		}
	}
	return "", &Error{Text: fmt.Sprintf("there is no task %q", typed), Hint: "`muster tasks` lists them", Kind: fleet.ErrNotFound}
}
