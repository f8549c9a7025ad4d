package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Trace is where in a trace of its submitter a task belongs, in the headers of
// W3C Trace Context (https://www.w3.org/TR/trace-context/). The zero Trace is
// none.
type Trace struct {
	Parent string `json:"parent,omitempty"` // traceparent, of version 00
	State  string `json:"state,omitempty"`  // tracestate; may be empty
}

var (
	// A version above 00 may have more behind the flags, after a dash.
	traceparent = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$`)
	tracestate  = regexp.MustCompile(`^[a-z0-9][-_*/@a-z0-9]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}$`)
)

// ParseTrace reads what a submitter has sent. What is no trace context is the
// zero Trace and never an error: by the specification it is as if nothing had
// been sent. A tracestate that is none is left out alone.
func ParseTrace(parent, state string) Trace {
	parent = strings.TrimSpace(parent)
	if len(parent) > 512 {
		return Trace{}
	}
	m := traceparent.FindStringSubmatch(parent)
	if m == nil || m[1] == "ff" || m[1] == "00" && m[5] != "" || strings.Trim(m[2], "0") == "" || strings.Trim(m[3], "0") == "" {
		return Trace{}
	}
	flags := "00"
	if strings.ContainsAny(m[4][1:], "13579bdf") {
		flags = "01" // sampled, the only flag that version 00 knows
	}
	return Trace{Parent: "00-" + m[2] + "-" + m[3] + "-" + flags, State: parseState(state)}
}

// parseState is a tracestate in its shortest form; empty where it is none.
func parseState(state string) string {
	const members, bytes = 32, 512
	if len(state) > bytes {
		return ""
	}
	var out []string
	seen := map[string]bool{}
	for member := range strings.SplitSeq(state, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		key, _, _ := strings.Cut(member, "=")
		if !tracestate.MatchString(member) || seen[key] {
			return ""
		}
		seen[key] = true
		out = append(out, member)
	}
	if len(out) > members {
		return ""
	}
	return strings.Join(out, ",")
}

// IDs are the parts of a Trace in hexadecimal; empty for the zero Trace.
func (t Trace) IDs() (trace, span string, sampled bool) {
	m := traceparent.FindStringSubmatch(t.Parent)
	if m == nil {
		return "", "", false
	}
	return m[2], m[3], m[4] == "01"
}

// TraceID is the trace that a task belongs to: its submitter's, else one of its
// own that follows from its id. So do the ids of its spans, so that whoever takes
// a task up after a restart goes on with the same ones. 32 hexadecimal digits.
func (t *Task) TraceID() string {
	if id, _, _ := t.Spec.Trace.IDs(); id != "" {
		return id
	}
	return t.traceSum("trace", 0)[:32]
}

// SpanID is the id of one of its spans, by name and attempt; 16 hexadecimal
// digits.
func (t *Task) SpanID(name string, attempt int) string { return t.traceSum(name, attempt)[:16] }

func (t *Task) traceSum(name string, attempt int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s", t.ID, attempt, name))
	return hex.EncodeToString(sum[:])
}

// SpanRun names the span in which the command runs, to which what the agent
// does belongs.
const SpanRun = "run"

// AgentTrace is the trace context of the command of an attempt. It is sampled
// unless the submitter's is not.
func (t *Task) AgentTrace(attempt int) Trace {
	_, parent, sampled := t.Spec.Trace.IDs()
	flags := "00"
	if sampled || parent == "" {
		flags = "01"
	}
	return Trace{Parent: "00-" + t.TraceID() + "-" + t.SpanID(SpanRun, attempt) + "-" + flags, State: t.Spec.Trace.State}
}
