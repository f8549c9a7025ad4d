package dispatch

import (
	"testing"

	"muster.dev/muster/internal/fleet"
)

// TestTraceOfTheCommand: with tracing each attempt's own context, without it
// the submitter's, and never in place of what the task says itself.
func TestTraceOfTheCommand(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	submitted := fleet.Task{ID: "t1", Spec: fleet.TaskSpec{Trace: fleet.ParseTrace(parent, "a=1")}}
	alone := fleet.Task{ID: "t2"}
	own := map[string]string{"TRACEPARENT": "mine", "OTEL_SERVICE_NAME": "agent"}
	for _, c := range []struct {
		name          string
		traced        bool
		task          *fleet.Task
		env           map[string]string
		parent, state string
	}{
		{"off, nobody sent one", false, &alone, nil, "", ""},
		{"off, passed on", false, &submitted, nil, parent, "a=1"},
		{"on, in the submitter's", true, &submitted, map[string]string{"A": "b"}, submitted.AgentTrace(2).Parent, "a=1"},
		{"on, one of its own", true, &alone, nil, alone.AgentTrace(2).Parent, ""},
		{"the task's own counts", true, &submitted, own, "mine", ""},
	} {
		got := (&Dispatcher{Config: Config{Traced: c.traced}}).traced(c.task, 2, c.env)
		if got["TRACEPARENT"] != c.parent || got["TRACESTATE"] != c.state {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if own["OTEL_SERVICE_NAME"] != "agent" || len(own) != 2 {
		t.Errorf("the task's variables became %v", own)
	}
}
