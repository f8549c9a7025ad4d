package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHistory: a fleet's file is changed and rolled back; what it was, who
// changed it and what differs stays on record over starts.
func TestHistory(t *testing.T) {
	needSandboxes(t)
	m := newMachine(t, smallFleet)
	m.start()
	if _, e, code := m.muster("", "fleet", "rollback", "--yes"); code != 1 || !strings.Contains(e, "nothing to roll back to") {
		t.Errorf("rollback of a new fleet: exit %d, %s", code, e)
	}
	m.stop()
	changed := strings.Replace(smallFleet, "max: 8}\n  nodes", "max: 6}\n  nodes", 1)
	changed = strings.Replace(changed, "spec:\n", "spec:\n  tenants: [{name: web}]\n", 1)
	if err := os.WriteFile(m.fleet, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	list := m.must("fleet", "history")
	if !strings.Contains(list, "capacity.sandboxes.max 8 → 6; tenants[0] unset → web") || strings.Count(list, "\n") != 3 {
		t.Errorf("history:\n%s", list)
	}
	if diff := m.must("fleet", "history", "2"); !strings.Contains(diff, "-      max: 8\n+      max: 6\n") {
		t.Errorf("history 2:\n%s", diff)
	}
	if _, e, code := m.muster("", "fleet", "rollback"); code != 2 || !strings.Contains(e, "--yes") {
		t.Errorf("rollback that can ask nobody: exit %d, %s", code, e)
	}
	if out := m.must("fleet", "rollback", "--dry-run"); !strings.Contains(out, "--- revision 2\n+++ revision 1\n") {
		t.Errorf("dry run:\n%s", out)
	}
	out := m.must("fleet", "rollback", "--yes")
	if !strings.Contains(out, "revision 1 is in force again, as revision 3") || !strings.Contains(out, "the next start only: spec.tenants") {
		t.Errorf("rollback:\n%s", out)
	}
	type inForce struct {
		Spec struct {
			Capacity struct{ Sandboxes struct{ Max int } }
			Tenants  []any
		}
	}
	var spec inForce
	if err := json.Unmarshal([]byte(m.must("fleet", "--spec", "-o", "json")), &spec); err != nil || spec.Spec.Capacity.Sandboxes.Max != 8 || len(spec.Spec.Tenants) != 1 {
		t.Errorf("in force: %+v, %v", spec, err)
	}
	if old, err := filepath.Glob(m.fleet + ".before-*"); err != nil || len(old) != 1 {
		t.Errorf("kept beside: %v, %v", old, err)
	} else if b, err := os.ReadFile(old[0]); err != nil || string(b) != changed {
		t.Errorf("kept beside: %s, %v", b, err)
	}
	if ev := m.must("events", "--kind", "fleet_changed", "-o", "json"); !strings.Contains(ev, "rollback to 1: capacity.sandboxes.max 6 → 8") {
		t.Errorf("events:\n%s", ev)
	}
	m.kill()
	m.start()
	var after struct {
		Revisions []struct{ Author, Note, Source string }
	}
	if err := json.Unmarshal([]byte(m.must("fleet", "history", "-o", "json")), &after); err != nil || len(after.Revisions) != 3 {
		t.Fatalf("after a start: %+v, %v", after, err)
	}
	if r := after.Revisions[0]; r.Note != "rollback to 1" || r.Source != "API" || !strings.HasSuffix(r.Author, "(API token)") {
		t.Errorf("the newest: %+v", r)
	}
	var then inForce
	if err := json.Unmarshal([]byte(m.must("fleet", "--spec", "-o", "json")), &then); err != nil || len(then.Spec.Tenants) != 0 {
		t.Errorf("in force after a start: %+v, %v", then, err)
	}
	if _, e, code := m.muster("", "fleet", "rollback", "9", "--yes"); code != 1 || !strings.Contains(e, "there is no revision 9; there are 1 to 3") {
		t.Errorf("unknown revision: exit %d, %s", code, e)
	}
}
