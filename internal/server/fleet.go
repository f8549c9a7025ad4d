package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

func (s *Server) fleetRoutes(api huma.API) {
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteFleet, "getFleet", "The fleet: what there is, what is wanted, and why"), s.view)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteFleetSpec, "getFleetSpec", "The fleet's specification in force, with its defaults"), s.spec)
	s.seriesRoute(api)
	s.pastRoute(api)
	s.sandboxRoutes(api)
	events := operation(http.MethodGet, v1alpha1.RouteEvents, "listEvents", "What the fleet did and why, oldest first; with follow=true as server-sent events")
	events.Description = "Without after and since: the newest ones. With follow=true (or Accept: text/event-stream) the events come as server-sent events named event, with their seq as id, as they happen."
	t := reflect.TypeFor[v1alpha1.EventList]()
	events.Responses = map[string]*huma.Response{"200": {Description: "Events", Content: map[string]*huma.MediaType{
		"application/json":  {Schema: api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())},
		"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	handle(s, api, events, s.events)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteEventExplain, "explainEvent", "Why an event happened", http.StatusNotFound), s.explainEvent)
	s.revisionRoutes(api)
	s.forecastRoute(api)
	s.shadowRoute(api)
	s.costRoutes(api)
	s.leadTimesRoute(api)
	s.adviceRoutes(api)
	s.evidenceRoute(api)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteVersion, "getVersion", "The server's version"), s.version)
}

// describeEvent puts a type that only streams carry into the document.
func describeEvent[T any](api huma.API) {
	t := reflect.TypeFor[T]()
	api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func (s *Server) view(ctx context.Context, _ *struct{}) (*body[v1alpha1.FleetView], error) {
	v, err := s.Engine.View(ctx)
	if err != nil {
		return nil, err
	}
	out := v1alpha1.NewFleetView(v, s.Fleet())
	out.Budgets = s.budgets()
	return reply(out), nil
}

func (s *Server) spec(context.Context, *struct{}) (*body[v1alpha1.Fleet], error) {
	return reply(*s.Fleet()), nil
}

type eventsInput struct {
	After  int64    `query:"after" minimum:"0" doc:"Behind this seq"`
	Since  string   `query:"since" doc:"At or after this time (RFC 3339) or in the time up to now (2h)"`
	Kind   []string `query:"kind,explode" doc:"Only these kinds; may be repeated"`
	Layer  string   `query:"layer" enum:"fleet,consumers,sandboxes,nodes,tasks"`
	Task   string   `query:"task" doc:"Only of this task"`
	Limit  int      `query:"limit" minimum:"0" maximum:"10000" doc:"At most; 0 is 100"`
	Follow bool     `query:"follow" doc:"Go on with what happens from now on"`
	Last   string   `header:"Last-Event-ID" doc:"Go on behind this event"`
	Accept string   `header:"Accept" hidden:"true"`
}

func (s *Server) eventFilter(in *eventsInput) (fleet.EventFilter, error) {
	f := fleet.EventFilter{After: in.After, Kinds: split(in.Kind), Layer: in.Layer, Task: fleet.TaskID(in.Task), Limit: in.Limit}
	if in.Task != "" && !fleet.ValidID("t", in.Task) {
		return f, &fleet.FieldError{Field: "query.task", Wrong: fmt.Sprintf("%q is not a task's identifier", shorten(in.Task)), Right: "t and 20 characters"}
	}
	if f.Limit == 0 {
		f.Limit = 100
	}
	var err error
	if f.Since, err = s.since(in.Since); err != nil {
		return f, err
	}
	if in.Last != "" {
		if f.After, err = strconv.ParseInt(in.Last, 10, 64); err != nil || f.After < 0 {
			return f, &fleet.FieldError{Field: "header.Last-Event-ID", Wrong: fmt.Sprintf("%q is not the id of an event", shorten(in.Last)), Right: "the id of the last event received"}
		}
	}
	f.Last = f.After == 0 && f.Since.IsZero() && in.Last == ""
	return f, nil
}

func (s *Server) events(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	f, err := s.eventFilter(in)
	if err != nil {
		return nil, err
	}
	if !in.Follow && !strings.Contains(in.Accept, "text/event-stream") {
		events, err := s.Store.Events(ctx, f)
		if err != nil {
			return nil, err
		}
		if events == nil {
			events = []fleet.Event{}
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", "application/json")
			hc.SetStatus(http.StatusOK)
			_ = huma.DefaultJSONFormat.Marshal(hc.BodyWriter(), v1alpha1.EventList{Events: events}) // the client may be gone
		}}, nil
	}
	ctx, done, err := s.stream(ctx)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer done()
		_, w := humago.Unwrap(hc)
		stream, end := newStream(ctx, w, "text/event-stream")
		defer end()
		if err := s.followEvents(ctx, f, stream); err != nil {
			s.Logger.Debug("event stream ended", "error", err)
		}
	}}, nil
}

// followEvents writes the events of the filter and then those that happen,
// until ctx ends.
func (s *Server) followEvents(ctx context.Context, f fleet.EventFilter, out *streamWriter) error {
	wake, release := s.Store.WakeEvents()
	defer release()
	last, err := s.pastEvents(ctx, f, out)
	if err != nil {
		return err
	}
	beat, tick := time.NewTicker(s.beat), time.NewTicker(5*time.Second)
	defer beat.Stop()
	defer tick.Stop()
	for {
		if last, err = s.newEvents(ctx, f, last, out); err != nil {
			return err
		}
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-beat.C:
			if err := out.beat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const eventPage = 1000

// pastEvents writes what the journal holds already and returns the seq behind
// which newEvents goes on. The store selects here; later the selection is
// ours, so that a rare kind does not mean reading everything again.
func (s *Server) pastEvents(ctx context.Context, f fleet.EventFilter, out *streamWriter) (int64, error) {
	if !f.Last {
		f.Limit = eventPage
	}
	for {
		tail, err := s.Store.Events(ctx, fleet.EventFilter{Last: true, Limit: 1})
		if err != nil {
			return 0, err
		}
		events, err := s.Store.Events(ctx, f)
		if err != nil {
			return 0, err
		}
		if err := sendEvents(out, events); err != nil {
			return 0, err
		}
		if n := len(events); n > 0 {
			f.After = events[n-1].Seq
		}
		if f.Last || len(events) < eventPage {
			if len(tail) > 0 {
				return max(f.After, tail[0].Seq), nil
			}
			return f.After, nil
		}
	}
}

func (s *Server) newEvents(ctx context.Context, f fleet.EventFilter, last int64, out *streamWriter) (int64, error) {
	for {
		events, err := s.Store.Events(ctx, fleet.EventFilter{After: last, Limit: eventPage})
		if err != nil || len(events) == 0 {
			return last, err
		}
		last = events[len(events)-1].Seq
		chosen := slices.DeleteFunc(slices.Clone(events), func(e fleet.Event) bool { return !matches(f, e) })
		if err := sendEvents(out, chosen); err != nil {
			return last, err
		}
		if len(events) < eventPage {
			return last, nil
		}
	}
}

func matches(f fleet.EventFilter, e fleet.Event) bool {
	return (len(f.Kinds) == 0 || slices.Contains(f.Kinds, e.Kind)) &&
		(f.Layer == "" || f.Layer == e.Layer) && (f.Task == "" || f.Task == e.Task) && !e.At.Before(f.Since)
}

func sendEvents(out *streamWriter, events []fleet.Event) error {
	for _, e := range events {
		if err := out.event(v1alpha1.EventRecord, strconv.FormatInt(e.Seq, 10), e); err != nil {
			return err
		}
	}
	return nil
}

type seqPath struct {
	Seq int64 `path:"seq" minimum:"1"`
}

func (s *Server) explainEvent(ctx context.Context, in *seqPath) (*body[v1alpha1.ExplanationView], error) {
	e, err := s.Engine.ExplainEvent(ctx, in.Seq)
	if err != nil {
		return nil, missing(err, "event", in.Seq)
	}
	return reply(v1alpha1.NewExplanationView(e)), nil
}

// missing says in words what was not found.
func missing(err error, what string, seq int64) error {
	if errors.Is(err, fleet.ErrNotFound) {
		return fmt.Errorf("there is no %s %d: %w", what, seq, fleet.ErrNotFound)
	}
	return err
}

func (s *Server) version(context.Context, *struct{}) (*body[v1alpha1.Version], error) {
	return reply(v1alpha1.Version{Version: s.Version, GoVersion: runtime.Version(), APIVersion: v1alpha1.APIVersion}), nil
}
