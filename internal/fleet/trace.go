package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Trace is where in a trace of its submitter a task belongs, in the headers of
// W3C Trace Context (https://www.w3.org/TR/trace-context/). The zero Trace is
// none.
type Trace struct {
	Parent string `json:"parent,omitempty"` // traceparent, of version 00
	State  string `json:"state,omitempty"`  // tracestate; may be empty
}

// traceParent is a traceparent in its parts; regular expressions would cost every
// waiting runner, which is of this package, half a megabyte.
type traceParent struct{ version, trace, span, flags, rest string }

// splitParent reads a traceparent of any version. One above 00 may have more
// behind the flags, after a dash.
func splitParent(s string) (p traceParent, ok bool) {
	const size = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return traceParent{}, false
	}
	p = traceParent{s[:2], s[3:35], s[36:52], s[53:size], s[size:]}
	for _, part := range []string{p.version, p.trace, p.span, p.flags} {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return traceParent{}, false
		}
	}
	return p, p.rest == "" || p.rest[0] == '-' && !strings.Contains(p.rest, "\n")
}

// isMember tells a member of a tracestate: KEY=VALUE.
func isMember(s string) bool {
	key, value, found := strings.Cut(s, "=")
	if !found || key == "" || len(key) > 256 || value == "" || len(value) > 256 {
		return false
	}
	for i := range len(key) {
		c := key[i]
		small := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !small && (i == 0 || !strings.ContainsRune("-_*/@", rune(c))) {
			return false
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}

// ParseTrace reads what a submitter has sent. What is no trace context is the
// zero Trace and never an error: by the specification it is as if nothing had
// been sent. A tracestate that is none is left out alone.
func ParseTrace(parent, state string) Trace {
	parent = strings.TrimSpace(parent)
	if len(parent) > 512 {
		return Trace{}
	}
	p, ok := splitParent(parent)
	if !ok || p.version == "ff" || p.version == "00" && p.rest != "" || strings.Trim(p.trace, "0") == "" || strings.Trim(p.span, "0") == "" {
		return Trace{}
	}
	flags := "00"
	if strings.ContainsAny(p.flags[1:], "13579bdf") {
		flags = "01" // sampled, the only flag that version 00 knows
	}
	return Trace{Parent: "00-" + p.trace + "-" + p.span + "-" + flags, State: parseState(state)}
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
		if !isMember(member) || seen[key] {
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
	p, ok := splitParent(t.Parent)
	if !ok {
		return "", "", false
	}
	return p.trace, p.span, p.flags == "01"
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
