package fleet

import (
	"strings"
	"testing"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestParseTrace(t *testing.T) {
	zero, one := strings.Repeat("0", 32), strings.Repeat("1", 32)
	for in, want := range map[string]string{
		parent:              parent,
		" " + parent + "\t": parent,
		strings.Replace(parent, "00-", "cc-", 1) + "-what-comes": parent,                                  // of a later version
		strings.TrimSuffix(parent, "01") + "ff":                  parent,                                  // flags that are not known are left out
		strings.TrimSuffix(parent, "01") + "02":                  strings.TrimSuffix(parent, "01") + "00", // likewise
		"":                                                       "", "00": "", parent + "-more": "", strings.ToUpper(parent): "", "ff" + parent[2:]: "",
		"00-" + zero + "-00f067aa0ba902b7-01": "", "00-" + one + "-" + zero[:16] + "-01": "",
		parent[:54]: "", parent + "\r\nX: y": "", strings.Repeat("a", 1<<16): "", "cc" + parent[2:] + "-" + strings.Repeat("x", 600): "",
	} {
		if got := ParseTrace(in, ""); got.Parent != want {
			t.Errorf("%.80q is %q, want %q", in, got.Parent, want)
		}
	}
	for in, want := range map[string]string{
		"a=1": "a=1", " a=1 ,, b@c=x y": "a=1,b@c=x y", "a": "", "A=1": "", "a=1,a=2": "", "a=\x1b[31m": "", "a=é": "",
		strings.Repeat("a=1,", 200): "",
	} {
		if got := ParseTrace(parent, in); got.State != want || got.Parent != parent {
			t.Errorf("state %.40q is %q of %q, want %q", in, got.State, got.Parent, want)
		}
	}
	if got := ParseTrace("none", "a=1"); got != (Trace{}) {
		t.Errorf("a state without a parent is %+v", got)
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add(parent, "a=1,b=2")
	f.Fuzz(func(t *testing.T, p, s string) {
		got := ParseTrace(p, s)
		if got != ParseTrace(got.Parent, got.State) || got.Parent == "" && got.State != "" || len(got.Parent) > 55 || len(got.State) > 512 {
			t.Errorf("%q, %q became %+v", p, s, got)
		}
	})
}

// TestAgentTrace: the same after a restart, another for each attempt and task,
// in the submitter's trace and sampled as that is.
func TestAgentTrace(t *testing.T) {
	a, b := Task{ID: "t1"}, Task{ID: "t2"}
	one := a.AgentTrace(1)
	if one != a.AgentTrace(1) || one == a.AgentTrace(2) || one == b.AgentTrace(1) || ParseTrace(one.Parent, "") != one || !strings.HasSuffix(one.Parent, "-01") {
		t.Errorf("%+v", one)
	}
	a.Spec.Trace = ParseTrace(strings.TrimSuffix(parent, "1")+"0", "a=1")
	got := a.AgentTrace(1)
	if id, span, sampled := got.IDs(); id != "4bf92f3577b34da6a3ce929d0e0e4736" || span != a.SpanID(SpanRun, 1) || sampled || got.State != "a=1" {
		t.Errorf("%+v", got)
	}
}
