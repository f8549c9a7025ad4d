package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// maxSubmit bounds the tasks of one submission.
const maxSubmit = 1000

// maxList bounds a page of a list.
const maxList = 10_000

// TaskPath is exported because huma sees embedded fields of exported types
// only.
type TaskPath struct {
	ID string `path:"id" doc:"A task's identifier" example:"t0123456789abcdefghij"`
}

// task reads the task of a path.
func (s *Server) task(ctx context.Context, id string) (fleet.Task, error) {
	if !fleet.ValidID("t", id) {
		return fleet.Task{}, fmt.Errorf("%q is not a task's identifier (t and 20 characters): %w", shorten(id), fleet.ErrNotFound)
	}
	t, err := s.Store.Task(ctx, fleet.TaskID(id))
	if errors.Is(err, fleet.ErrNotFound) {
		return t, fmt.Errorf("task %s does not exist, or was removed after spec.retention.tasks: %w", id, fleet.ErrNotFound)
	}
	return t, err
}

func (s *Server) taskRoutes(api huma.API) {
	op := operation(http.MethodPost, v1alpha1.RouteTasks, "submitTasks", "Submit tasks: all are accepted, durably, or none",
		http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests, http.StatusInsufficientStorage)
	op.DefaultStatus = http.StatusCreated
	op.Description = "201 when a task is new; 200 when every one was submitted before with the same idempotency key."
	handle(s, api, op, s.submit)
	describeBody[v1alpha1.SubmitRequest](api, op.Path, op.Method)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteTasks, "listTasks", "List tasks, newest first"), s.list)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteTask, "getTask", "One task", http.StatusNotFound), s.get)
	handle(s, api, operation(http.MethodPost, v1alpha1.RouteTaskCancel, "cancelTask", "Ask for a task's end; a final task stays as it is", http.StatusNotFound), s.cancel)
	retry := operation(http.MethodPost, v1alpha1.RouteTaskRetry, "retryTask", "Submit a new task with the spec of this one", http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests)
	retry.DefaultStatus = http.StatusCreated
	handle(s, api, retry, s.retry)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteTaskWait, "waitTask", "The task once it is final, or as it is when the timeout is over", http.StatusNotFound), s.wait)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteTaskExplain, "explainTask", "Why a task waited", http.StatusNotFound), s.explainTask)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteTaskUsage, "taskUsage", "What a task has used so far", http.StatusNotFound), s.usage)
}

type submitInput struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	TraceParent string `header:"traceparent" doc:"The trace that the tasks belong to, in the form of W3C Trace Context; what is none is ignored"`
	TraceState  string `header:"tracestate" doc:"What tracing systems add to it"`
	RawBody     []byte `contentType:"application/json"`
}

type submitOutput struct {
	Status int
	Body   v1alpha1.TaskList
}

func (s *Server) submit(ctx context.Context, in *submitInput) (*submitOutput, error) {
	var req v1alpha1.SubmitRequest
	if err := decodeBody(in.ContentType, in.RawBody, &req); err != nil {
		return nil, err
	}
	if n := len(req.Tasks); n == 0 || n > maxSubmit {
		return nil, &fleet.FieldError{Field: "tasks", Wrong: fmt.Sprintf("has %d tasks", n), Right: fmt.Sprintf("1 to %d", maxSubmit)}
	}
	now, f, trace := s.Clock(), s.Fleet(), fleet.ParseTrace(in.TraceParent, in.TraceState)
	tasks := make([]fleet.Task, 0, len(req.Tasks))
	var problems []error
	for i, spec := range req.Tasks {
		at := fmt.Sprintf("tasks[%d]", i)
		resolved, err := f.ResolveTaskAt(at, spec, now)
		if err == nil {
			err = s.Fits(ctx, at, resolved)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		resolved.Trace = trace
		tasks = append(tasks, newTask(resolved, now))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return s.enqueue(ctx, tasks)
}

func newTask(spec fleet.TaskSpec, now time.Time) fleet.Task {
	t := fleet.Task{ID: fleet.NewTaskID(now), Spec: spec, State: fleet.TaskQueued, SubmittedAt: now, DueAt: now}
	if spec.NotBefore.After(now) {
		t.DueAt = spec.NotBefore
	}
	return t
}

func (s *Server) enqueue(ctx context.Context, tasks []fleet.Task) (*submitOutput, error) {
	if m := s.Fleet().Spec; m.Follows() {
		return nil, fmt.Errorf("this fleet is of mode %s: others take the tasks from queue %s, so put the task there: %w", m.Mode, m.Queue.Type, fleet.ErrConflict)
	}
	stored, err := s.Store.Submit(ctx, tasks)
	if err != nil {
		return nil, err
	}
	out := &submitOutput{Status: http.StatusOK, Body: v1alpha1.TaskList{Tasks: make([]v1alpha1.TaskView, 0, len(stored))}}
	for i, t := range stored {
		if t.ID == tasks[i].ID {
			out.Status = http.StatusCreated
		}
		out.Body.Tasks = append(out.Body.Tasks, v1alpha1.NewTaskView(t))
	}
	return out, nil
}

type listInput struct {
	State  []string `query:"state,explode" doc:"Only these states; may be repeated"`
	Label  []string `query:"label,explode" doc:"Only with this label, as key=value; may be repeated"`
	Since  string   `query:"since" doc:"Submitted at or after this time (RFC 3339) or in the time up to now (2h)"`
	Query  string   `query:"q" maxLength:"200" doc:"Only with all of these words in id, name, team, pool, state, reason, repository, command, labels"`
	Before string   `query:"before" doc:"The page behind this task"`
	Limit  int      `query:"limit" minimum:"0" maximum:"10000" doc:"At most; 0 is 100"`
}

func (s *Server) list(ctx context.Context, in *listInput) (*body[v1alpha1.TaskList], error) {
	f := fleet.TaskFilter{Limit: in.Limit}
	if f.Limit == 0 {
		f.Limit = 100
	}
	for _, name := range split(in.State) {
		st := fleet.TaskState(name)
		if !slices.Contains(fleet.TaskStates, st) {
			return nil, &fleet.FieldError{Field: "query.state", Wrong: fmt.Sprintf("%q is unknown", shorten(name)), Right: fmt.Sprint(fleet.TaskStates)}
		}
		f.States = append(f.States, st)
	}
	for _, l := range split(in.Label) {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, &fleet.FieldError{Field: "query.label", Wrong: fmt.Sprintf("%q is not a label", shorten(l)), Right: "key=value"}
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		if was, twice := f.Labels[k]; twice && was != v {
			return reply(v1alpha1.TaskList{Tasks: []v1alpha1.TaskView{}}), nil // nothing has both
		}
		f.Labels[k] = v
	}
	var err error
	if f.Since, err = s.since(in.Since); err != nil {
		return nil, err
	}
	if in.Before != "" && !fleet.ValidID("t", in.Before) {
		return nil, &fleet.FieldError{Field: "query.before", Wrong: fmt.Sprintf("%q is not a task's identifier", shorten(in.Before)), Right: "the value of before in the page's answer"}
	}
	f.Before = fleet.TaskID(in.Before)
	if words := strings.Fields(strings.ToLower(in.Query)); len(words) > 0 {
		return s.search(ctx, f, words)
	}
	return s.page(ctx, f)
}

// mostSearched bounds the tasks that one request looks through; what is behind
// them is the next page.
const mostSearched = 10_000

// search is page with words to be found, which no index holds. A page may have
// fewer than wanted and yet name another.
func (s *Server) search(ctx context.Context, f fleet.TaskFilter, words []string) (*body[v1alpha1.TaskList], error) {
	limit := f.Limit
	out := v1alpha1.TaskList{Tasks: []v1alpha1.TaskView{}}
	f.Limit = 1000
	for looked := 0; looked < mostSearched; looked += f.Limit {
		tasks, err := s.Store.Tasks(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			if len(out.Tasks) == limit {
				out.Before = out.Tasks[limit-1].ID
				return reply(out), nil
			}
			if hasWords(t, words) {
				out.Tasks = append(out.Tasks, v1alpha1.NewTaskView(t))
			}
		}
		if len(tasks) < f.Limit {
			return reply(out), nil
		}
		f.Before = tasks[len(tasks)-1].ID
	}
	out.Before = f.Before
	return reply(out), nil
}

func hasWords(t fleet.Task, words []string) bool {
	all := []string{string(t.ID), t.Spec.Name, string(t.Spec.Tenant), string(t.Spec.Pool), string(t.State), string(t.Result.Reason), strings.Join(t.Spec.Command, " ")}
	if t.Spec.Repo != nil {
		all = append(all, t.Spec.Repo.URL)
	}
	for k, v := range t.Spec.Labels {
		all = append(all, k+"="+v)
	}
	text := strings.ToLower(strings.Join(all, "\n"))
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// page asks for one task more than wanted, to know whether there is another
// page.
func (s *Server) page(ctx context.Context, f fleet.TaskFilter) (*body[v1alpha1.TaskList], error) {
	limit := f.Limit
	if limit < maxList {
		f.Limit++
	}
	tasks, err := s.Store.Tasks(ctx, f)
	if err != nil {
		return nil, err
	}
	more := len(tasks) > limit || limit == maxList && len(tasks) == limit
	tasks = tasks[:min(limit, len(tasks))]
	out := v1alpha1.TaskList{Tasks: make([]v1alpha1.TaskView, 0, len(tasks))}
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, v1alpha1.NewTaskView(t))
	}
	if more {
		out.Before = tasks[len(tasks)-1].ID
	}
	return reply(out), nil
}

// split allows a=x&a=y as well as a=x,y.
func split(values []string) []string {
	var out []string
	for _, v := range values {
		for _, part := range strings.Split(v, ",") {
			if part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// since reads a time, or a duration up to now.
func (s *Server) since(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return s.Clock().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, &fleet.FieldError{Field: "query.since", Wrong: fmt.Sprintf("%q is not a time", shorten(text)), Right: "RFC 3339 such as 2026-01-31T08:00:00Z, or a duration such as 2h"}
	}
	return t, nil
}

func (s *Server) get(ctx context.Context, in *TaskPath) (*body[v1alpha1.TaskView], error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v := v1alpha1.NewTaskView(t)
	v.Cost = s.costOf(ctx, t.ID)
	return reply(v), nil
}

type cancelInput struct {
	TaskPath
	Authorization string `header:"Authorization" hidden:"true"`
	Forwarded     string `header:"Muster-Forwarded" hidden:"true"`
}

func (s *Server) cancel(ctx context.Context, in *cancelInput) (*body[v1alpha1.TaskView], error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if t, err = s.Engine.Cancel(ctx, t.ID, "API"); err != nil {
		return nil, err
	}
	if !t.State.Final() && in.Forwarded == "" {
		s.tellOwner(ctx, t.ID, in.Authorization)
	}
	return reply(v1alpha1.NewTaskView(t)), nil
}

func (s *Server) retry(ctx context.Context, in *TaskPath) (*body[v1alpha1.TaskView], error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(s.Fleet().Spec.Templates, func(m v1alpha1.Template) bool { return m.Name == t.Spec.Template }) {
		return nil, refuse(http.StatusConflict, "task %s was made for template %q, which the fleet does not have any more", t.ID, t.Spec.Template)
	}
	spec := t.Spec
	spec.IdempotencyKey, spec.NotBefore = "", time.Time{}
	out, err := s.enqueue(ctx, []fleet.Task{newTask(spec, s.Clock())})
	if err != nil {
		return nil, err
	}
	return reply(out.Body.Tasks[0]), nil
}

type waitInput struct {
	TaskPath
	Timeout string `query:"timeout" doc:"At most this long, up to 5m; default 30s" example:"30s"`
}

func (s *Server) wait(ctx context.Context, in *waitInput) (*body[v1alpha1.TaskView], error) {
	timeout := 30 * time.Second
	if in.Timeout != "" {
		d, err := time.ParseDuration(in.Timeout)
		if err != nil || d < 0 || d > 5*time.Minute {
			return nil, &fleet.FieldError{Field: "query.timeout", Wrong: fmt.Sprintf("%q is not allowed", shorten(in.Timeout)), Right: "a duration from 0s to 5m"}
		}
		timeout = d
	}
	t, err := s.task(ctx, in.ID)
	if err != nil || t.State.Final() || timeout == 0 {
		return reply(v1alpha1.NewTaskView(t)), err
	}
	ctx, done, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if t, err = s.await(ctx, t); err != nil {
		return nil, err
	}
	return reply(v1alpha1.NewTaskView(t)), nil
}

// await returns the task when it is final or ctx ends.
func (s *Server) await(ctx context.Context, t fleet.Task) (fleet.Task, error) {
	changed, release := s.hub.watch(t.ID)
	defer release()
	// The hub is told by events; the ticker covers one that could not be
	// written.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		now, err := s.Store.Task(ctx, t.ID)
		switch {
		case ctx.Err() != nil:
			return t, nil
		case err != nil:
			return t, err
		}
		if t = now; t.State.Final() {
			return t, nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return t, nil
		}
	}
}

func (s *Server) explainTask(ctx context.Context, in *TaskPath) (*body[v1alpha1.ExplanationView], error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.Engine.ExplainTask(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	return reply(v1alpha1.NewExplanationView(e)), nil
}

func (s *Server) usage(ctx context.Context, in *TaskPath) (*body[v1alpha1.UsageView], error) {
	t, err := s.task(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	u, err := s.Engine.Usage(ctx, t.ID)
	if err != nil {
		return nil, err
	}
	return reply(v1alpha1.NewUsageView(u)), nil
}
