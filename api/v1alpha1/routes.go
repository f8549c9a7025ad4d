package v1alpha1

import (
	"fmt"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The routes of the HTTP API, as patterns with the names of their parameters.
// The OpenAPI document (GET /openapi.json) describes each.
const (
	RouteTasks        = "/v1/tasks"                       // GET list, POST submit
	RouteTask         = "/v1/tasks/{id}"                  // GET
	RouteTaskCancel   = "/v1/tasks/{id}/cancel"           // POST
	RouteTaskRetry    = "/v1/tasks/{id}/retry"            // POST
	RouteTaskLog      = "/v1/tasks/{id}/log"              // GET: server-sent events or text
	RouteTaskWait     = "/v1/tasks/{id}/wait"             // GET: long poll
	RouteTaskPatch    = "/v1/tasks/{id}/patch"            // GET
	RouteArtifacts    = "/v1/tasks/{id}/artifacts"        // GET list
	RouteArtifact     = "/v1/tasks/{id}/artifacts/{path}" // GET; path may hold slashes
	RouteTaskExplain  = "/v1/tasks/{id}/explain"          // GET
	RouteTaskUsage    = "/v1/tasks/{id}/usage"            // GET
	RouteTaskExec     = "/v1/tasks/{id}/exec"             // GET: WebSocket
	RouteFleet        = "/v1/fleet"                       // GET
	RouteFleetSpec    = "/v1/fleet/spec"                  // GET
	RouteRevisions    = "/v1/fleet/revisions"             // GET
	RouteRevision     = "/v1/fleet/revisions/{n}"         // GET
	RouteRollback     = "/v1/fleet/rollback"              // POST
	RouteFleetSeries  = "/v1/fleet/series"                // GET
	RouteFleetPast    = "/v1/fleet/past"                  // GET
	RouteSandboxes    = "/v1/sandboxes"                   // GET
	RouteEvents       = "/v1/events"                      // GET: JSON or server-sent events
	RouteEventExplain = "/v1/events/{seq}/explain"        // GET
	RouteDecisions    = "/v1/decisions"                   // GET
	RouteDecision     = "/v1/decisions/{seq}"             // GET
	RoutePolicy       = "/v1/policies/{digest}"           // GET
	RouteShadow       = "/v1/shadow"                      // GET
	RouteForecast     = "/v1/forecast"                    // GET
	RouteLeadTimes    = "/v1/lead-times"                  // GET
	RouteCost         = "/v1/cost"                        // GET
	RouteCostSeries   = "/v1/cost/series"                 // GET
	RouteWhatIf       = "/v1/whatif"                      // POST
	RouteEvidence     = "/v1/evidence"                    // GET
	RouteAdvice       = "/v1/advice"                      // GET
	RouteFleetPatch   = "/v1/fleet/patch"                 // POST
	RouteCostFocus    = "/v1/cost/focus"                  // GET: CSV
	RouteSchedules    = "/v1/schedules"                   // GET
	RouteSchedule     = "/v1/schedules/{name}"            // GET, PUT, DELETE
	RouteVersion      = "/v1/version"                     // GET
)

// SubmitRequest is the body of POST /v1/tasks: all are accepted or none.
type SubmitRequest struct {
	Tasks []TaskSpec `json:"tasks" minItems:"1" maxItems:"1000"`
}

// TaskList is the answer of POST and GET /v1/tasks. A list is newest first.
type TaskList struct {
	Tasks []TaskView `json:"tasks"`
	// Before is what to ask for as ?before= to get the next page; empty on
	// the last one.
	Before fleet.TaskID `json:"before,omitempty" doc:"Ask with ?before= this for the next page; absent on the last"`
}

// ArtifactList is the answer of GET /v1/tasks/{id}/artifacts.
type ArtifactList struct {
	Artifacts []fleet.Artifact `json:"artifacts"`
	Note      string           `json:"note,omitempty" doc:"Why some are missing"`
}

// EventList is the answer of GET /v1/events, oldest first.
type EventList struct {
	Events []fleet.Event `json:"events"`
}

// DecisionList is the answer of GET /v1/decisions, oldest first.
type DecisionList struct {
	Decisions []DecisionView `json:"decisions"`
	// After is what to ask for as ?after= to get the next page; 0 on the last
	// one.
	After int64 `json:"after,omitempty" doc:"Ask with ?after= this for the next page; absent on the last"`
}

// ScheduleList is the answer of GET /v1/schedules.
type ScheduleList struct {
	Schedules []ScheduleView `json:"schedules"`
}

// Version is the answer of GET /v1/version.
type Version struct {
	Version    string `json:"version"`
	GoVersion  string `json:"goVersion"`
	APIVersion string `json:"apiVersion"`
}

// The names of the server-sent events of a task's log. Their ids are log
// offsets: asking again with Last-Event-ID goes on behind that event.
const (
	// LogEventRecord carries a LogEvent; its id is the offset behind its data.
	LogEventRecord = "log"
	// LogEventEnd carries a LogEnd and closes the stream.
	LogEventEnd = "end"
	// EventRecord carries a fleet.Event on GET /v1/events?follow=true; its id
	// is the event's seq.
	EventRecord = "event"
)

// LogEvent is one piece of a task's log.
type LogEvent struct {
	Offset  int64     `json:"offset" doc:"Of the first byte, over all streams"`
	At      time.Time `json:"at"`
	Stream  string    `json:"stream" enum:"stdout,stderr,system"`
	Data    []byte    `json:"data" doc:"base64"`
	Attempt int       `json:"attempt"`
}

// LogEnd ends the log's event stream.
type LogEnd struct {
	State   fleet.TaskState  `json:"state"`
	Reason  fleet.TaskReason `json:"reason,omitempty"`
	Message string           `json:"message,omitempty"`
	Bytes   int64            `json:"bytes" doc:"Length of the log"`
	Dropped int64            `json:"dropped,omitempty" doc:"Bytes beyond the log limit"`
}

// StreamName names a log stream: stdout, stderr or system.
func StreamName(s fleet.Stream) string {
	switch s {
	case fleet.StreamStdout:
		return "stdout"
	case fleet.StreamStderr:
		return "stderr"
	}
	return "system"
}

// Problem is an error answer: RFC 9457, application/problem+json.
type Problem struct {
	Type   string         `json:"type,omitempty"`
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail,omitempty"`
	Errors []ProblemField `json:"errors,omitempty"`
}

// ProblemField is what is wrong with one field.
type ProblemField struct {
	Location string `json:"location,omitempty"` // body.tasks[0].resources.memory
	Message  string `json:"message"`            // what is wrong, and what would be right
	Value    any    `json:"value,omitempty"`
}

// Error is the problem in words, one line per field.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Detail == "" {
		fmt.Fprintf(&b, "%d %s", p.Status, p.Title)
	}
	for _, f := range p.Errors {
		b.WriteString("\n  ")
		if f.Location != "" {
			b.WriteString(f.Location + ": ")
		}
		b.WriteString(f.Message)
	}
	return b.String()
}
