package intake

import (
	"testing"

	"muster.dev/muster/internal/fleet"
)

// TestTraceOfAMessage: backends spell the names of headers as they like, and
// what is no trace context is none.
func TestTraceOfAMessage(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, c := range []struct {
		headers map[string]string
		want    fleet.Trace
	}{
		{nil, fleet.Trace{}},
		{map[string]string{"traceparent": parent}, fleet.Trace{Parent: parent}},
		{map[string]string{"Traceparent": parent, "TraceState": "a=1", "other": "x"}, fleet.Trace{Parent: parent, State: "a=1"}},
		{map[string]string{"traceparent": "00-\x1b[31m", "tracestate": "a=1"}, fleet.Trace{}},
	} {
		if got := traceOf(fleet.Message{Headers: c.headers}); got != c.want {
			t.Errorf("%v is %+v, want %+v", c.headers, got, c.want)
		}
	}
}
