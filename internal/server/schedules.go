package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/fleet"
)

// maxSchedules bounds how many schedules there may be.
const maxSchedules = 10_000

func (s *Server) scheduleRoutes(api huma.API) {
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteSchedules, "listSchedules", "The schedules, by name"), s.schedules)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteSchedule, "getSchedule", "One schedule", http.StatusNotFound), s.schedule)
	put := operation(http.MethodPut, v1alpha1.RouteSchedule, "putSchedule", "Create or replace a schedule", http.StatusRequestEntityTooLarge)
	handle(s, api, put, s.putSchedule)
	describeBody[v1alpha1.ScheduleSpec](api, put.Path, put.Method)
	del := operation(http.MethodDelete, v1alpha1.RouteSchedule, "deleteSchedule", "Remove a schedule; the tasks it submitted are left alone", http.StatusNotFound)
	del.DefaultStatus = http.StatusNoContent
	handle(s, api, del, s.deleteSchedule)
}

// SchedulePath is exported for the same reason as TaskPath.
type SchedulePath struct {
	Name string `path:"name" doc:"1-63 lower-case letters, digits and \"-\""`
}

func (s *Server) schedules(ctx context.Context, _ *struct{}) (*body[v1alpha1.ScheduleList], error) {
	all, err := s.Store.Schedules(ctx)
	if err != nil {
		return nil, err
	}
	out := v1alpha1.ScheduleList{Schedules: make([]v1alpha1.ScheduleView, 0, len(all))}
	for _, one := range all {
		out.Schedules = append(out.Schedules, v1alpha1.NewScheduleView(one))
	}
	return reply(out), nil
}

// find returns the schedule of a name and how many there are.
func (s *Server) find(ctx context.Context, name string) (fleet.Schedule, int, error) {
	all, err := s.Store.Schedules(ctx)
	if err != nil {
		return fleet.Schedule{}, 0, err
	}
	i := slices.IndexFunc(all, func(one fleet.Schedule) bool { return one.Name == name })
	if i < 0 {
		return fleet.Schedule{}, len(all), fmt.Errorf("there is no schedule %q: %w", shorten(name), fleet.ErrNotFound)
	}
	return all[i], len(all), nil
}

func (s *Server) schedule(ctx context.Context, in *SchedulePath) (*body[v1alpha1.ScheduleView], error) {
	one, _, err := s.find(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return reply(v1alpha1.NewScheduleView(one)), nil
}

type putScheduleInput struct {
	SchedulePath
	ContentType string `header:"Content-Type" hidden:"true"`
	RawBody     []byte `contentType:"application/json"`
}

func (s *Server) putSchedule(ctx context.Context, in *putScheduleInput) (*body[v1alpha1.ScheduleView], error) {
	var spec v1alpha1.ScheduleSpec
	if err := decodeBody(in.ContentType, in.RawBody, &spec); err != nil {
		return nil, err
	}
	whole := v1alpha1.Schedule{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindSchedule,
		Metadata: v1alpha1.Metadata{Name: in.Name}, Spec: spec,
	}
	if err := whole.Validate(); err != nil {
		return nil, err
	}
	now := s.Clock()
	if _, err := s.Fleet().ResolveTaskAt("spec.task", spec.Task, now); err != nil {
		return nil, err
	}
	rule, err := calendar.Parse(spec.Cron, spec.Timezone)
	if err != nil {
		return nil, err
	}
	task, err := json.Marshal(spec.Task)
	if err != nil {
		return nil, fmt.Errorf("keep the task: %w", err)
	}
	old, count, err := s.find(ctx, in.Name)
	if err == nil {
		count--
	} else if status, _ := kindOf(err); status != http.StatusNotFound {
		return nil, err
	}
	if count >= maxSchedules {
		return nil, refuse(http.StatusConflict, "there are %d schedules already, as many as may be", count)
	}
	// What a schedule did before stays known; when it fires next is counted
	// from now, unless its rule is the same.
	next := rule.Next(now)
	if old.Cron == spec.Cron && old.Timezone == zone(spec.Timezone) && !old.Paused && old.Next.After(now) {
		next = old.Next
	}
	one := fleet.Schedule{
		Name: in.Name, Cron: spec.Cron, Timezone: zone(spec.Timezone), Paused: spec.Paused, Task: task,
		Next: next, LastAt: old.LastAt, LastTask: old.LastTask,
	}
	if err := s.Store.PutSchedule(ctx, one); err != nil {
		return nil, err
	}
	return reply(v1alpha1.NewScheduleView(one)), nil
}

func zone(name string) string {
	if name == "" {
		return "UTC"
	}
	return name
}

func (s *Server) deleteSchedule(ctx context.Context, in *SchedulePath) (*struct{}, error) {
	if _, _, err := s.find(ctx, in.Name); err != nil {
		return nil, err
	}
	return nil, s.Store.DeleteSchedule(ctx, in.Name)
}

// SubmitScheduled submits the task of a schedule, as its user wrote it, under
// an idempotency key; it has the form that package schedule asks for. A task
// without a name has the schedule's.
func (s *Server) SubmitScheduled(ctx context.Context, name string, task []byte, key string) (fleet.TaskID, error) {
	var spec v1alpha1.TaskSpec
	if err := v1alpha1.DecodeJSON(task, &spec); err != nil {
		return "", fmt.Errorf("read the schedule's task: %w", err)
	}
	spec.IdempotencyKey = key
	if spec.Name == "" {
		spec.Name = name
	}
	now := s.Clock()
	resolved, err := s.Fleet().ResolveTask(spec, now)
	if err != nil {
		return "", err
	}
	out, err := s.enqueue(ctx, []fleet.Task{newTask(resolved, now)})
	if err != nil {
		return "", err
	}
	return out.Body.Tasks[0].ID, nil
}
