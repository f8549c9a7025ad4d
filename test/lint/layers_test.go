package lint

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// layer is a row of the layer table: what packages below dir may import of
// this module, beside packages below dir itself.
type layer struct {
	dir   string
	level string
	may   []string
}

// layers is the layer table. CONTRIBUTING.md shows the same rows, which
// TestTheTableIsWrittenDown checks.
var layers = []layer{
	{"internal/fleet", "L0", nil},
	{"internal/agentout", "L1", []string{"internal/fleet"}},
	{"internal/calendar", "L1", []string{"internal/fleet"}},
	{"internal/cost", "L1", []string{"internal/fleet"}},
	{"internal/forecast", "L1", []string{"internal/fleet", "internal/calendar"}},
	{"internal/plan", "L1", []string{"internal/fleet", "internal/calendar", "internal/forecast", "internal/cost"}},
	{"api/v1alpha1", "L1", []string{"internal/fleet", "internal/calendar"}},
	{"internal/dispatch", "L2", []string{"internal/fleet", "internal/plan", "internal/agentout"}},
	{"internal/control", "L2", []string{"internal/fleet", "internal/plan", "internal/forecast", "internal/cost", "internal/calendar", "internal/dispatch"}},
	{"internal/consumer", "L2", []string{"internal/fleet", "internal/dispatch"}},
	{"internal/intake", "L2", []string{"internal/fleet"}},
	{"internal/payload", "L2", []string{"internal/fleet", "api/v1alpha1"}},
	{"internal/schedule", "L2", []string{"internal/fleet", "internal/calendar", "api/v1alpha1"}},
	{"internal/ledger", "L3", []string{"internal/fleet", "internal/cost"}},
	{"internal/replay", "L3", []string{"internal/fleet", "internal/plan", "internal/control"}},
	{"internal/sim", "L3", []string{"internal/fleet", "internal/plan", "internal/forecast", "internal/cost", "internal/dispatch"}},
	{"internal/whatif", "L3", []string{"internal/fleet", "internal/plan", "internal/control", "internal/cost", "internal/sim", "api/v1alpha1"}},
	{"internal/advise", "L3", []string{"internal/fleet", "internal/plan", "internal/control", "internal/cost", "internal/whatif", "api/v1alpha1"}},
	{"internal/evidence", "L3", []string{"internal/fleet", "api/v1alpha1"}},
	{"internal/queue", "adapter", []string{"internal/fleet"}},
	{"internal/store", "adapter", []string{"internal/fleet", "internal/pg"}},
	{"internal/pg", "adapter", []string{"internal/fleet"}},
	{"internal/kube", "adapter", []string{"internal/fleet"}},
	{"internal/sandbox", "adapter", []string{"internal/fleet", "internal/protocol", "internal/cgroup", "internal/kube"}},
	{"internal/nodes", "adapter", []string{"internal/fleet", "internal/kube"}},
	{"internal/scaler", "adapter", []string{"internal/fleet", "internal/kube"}},
	{"internal/archive", "adapter", []string{"internal/fleet", "internal/pg"}},
	{"internal/secret", "adapter", []string{"internal/fleet"}},
	{"internal/webhook", "adapter", []string{"internal/fleet", "api/v1alpha1"}},
	{"internal/tracing", "adapter", []string{"internal/fleet"}},
	{"internal/cgroup", "adapter", []string{"internal/fleet"}},
	{"internal/protocol", "adapter", []string{"internal/fleet"}},
	{"internal/runner", "runner", []string{"internal/fleet", "internal/protocol"}},
	{"internal/server", "edge", []string{"internal/fleet", "api/v1alpha1", "internal/calendar"}},
	{"internal/web", "edge", nil},
	{"internal/keda", "edge", []string{"internal/fleet"}},
	{"internal/kedaimport", "edge", []string{"internal/fleet", "api/v1alpha1", "internal/calendar"}},
	{"internal/client", "edge", []string{"internal/fleet", "api/v1alpha1"}},
	{"internal/operator", "edge", []string{"internal/fleet", "api/v1alpha1", "internal/kube"}},
	{"internal/doctor", "edge", []string{"internal/fleet", "internal/kube"}},
	{"internal/terminal", "edge", nil},
	{"cmd/muster-runner", "wiring", []string{"internal/runner", "internal/protocol", "internal/fleet"}},
	{"cmd/muster", "wiring", []string{"internal", "api"}},
}

// suites may be imported by the tests of any package: conformance suites,
// fakes, and the other end or the real store where a test needs the pair.
var suites = []string{
	"internal/queue/queuetest", "internal/store/storetest", "internal/sandbox/sandboxtest", "internal/nodes/nodestest",
	"internal/queue/memory", "internal/store/memory", "internal/sandbox/fake", "internal/nodes/fake", "internal/sandbox/virtual", "internal/nodes/virtual", "internal/sandbox/link", "internal/sandbox/gateway", "internal/archive",
	"internal/store/sqlite", "internal/client", "internal/consumer", "test/kube",
}

func layerOf(dir string) (layer, bool) {
	for _, l := range layers {
		if within(dir, l.dir) {
			return l, true
		}
	}
	return layer{}, false
}

func TestImportsGoDownward(t *testing.T) {
	for _, f := range tree(t) {
		if within(f.dir, "test", "tools") {
			continue
		}
		l, ok := layerOf(f.dir)
		if !ok {
			t.Errorf("%s: package %s is in no row of the layer table; add it to test/lint and CONTRIBUTING.md", f.path(), f.dir)
			continue
		}
		for _, spec := range f.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			inner, ours := strings.CutPrefix(imported, module)
			if !ours || within(inner, l.dir) || within(inner, l.may...) {
				continue
			}
			conformance := strings.HasSuffix(f.dir, "test") // a suite checks two ports of one adapter
			if (f.test || conformance) && within(inner, append(suites, "internal/fleet", "api/v1alpha1", "internal/runner", "internal/protocol", "internal/calendar")...) {
				continue
			}
			t.Errorf("%s: %s (%s) may not import %s; it may import %s",
				f.at(spec.Pos()), f.dir, l.level, inner, orNothing(l.may))
		}
	}
}

func orNothing(may []string) string {
	if len(may) == 0 {
		return "nothing of this module"
	}
	return strings.Join(may, ", ")
}

// pure are the packages that decide: functions of their arguments.
var pure = []string{"internal/plan", "internal/forecast", "internal/cost", "internal/calendar", "internal/agentout", "internal/store/lifecycle"}

// clockless are further packages that may not look at the clock or draw global
// random numbers: a simulation is a function of its arguments.
var clockless = []string{"internal/sim"}

var impureImports = []string{"context", "log", "os", "net", "io/fs", "sync", "crypto/rand", "math/rand"}

var impureCalls = map[string]map[string]bool{
	"time": set("Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"),
	"math/rand/v2": set("Int", "IntN", "Int32", "Int32N", "Int64", "Int64N", "Uint32", "Uint32N", "Uint64", "Uint64N", "UintN",
		"N", "Float32", "Float64", "NormFloat64", "ExpFloat64", "Perm", "Shuffle"),
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

func TestDecidingPackagesArePure(t *testing.T) {
	for _, f := range tree(t) {
		deciding := within(f.dir, pure...)
		if f.test || !deciding && !within(f.dir, clockless...) {
			continue
		}
		local := map[string]string{} // name in this file -> import path
		for _, spec := range f.ast.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if deciding && within(imported, impureImports...) && imported != "math/rand/v2" {
				t.Errorf("%s: a pure package may not import %s", f.at(spec.Pos()), imported)
			}
			name := path.Base(imported)
			if imported == "math/rand/v2" {
				name = "rand"
			}
			if spec.Name != nil {
				name = spec.Name.Name
			}
			local[name] = imported
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && impureCalls[local[x.Name]][s.Sel.Name] {
				t.Errorf("%s: a pure package may not use %s.%s; take it as an argument", f.at(s.Pos()), x.Name, s.Sel.Name)
			}
			return true
		})
	}
}

func TestPlanNeverSeesKubernetes(t *testing.T) {
	for _, f := range tree(t) {
		if !within(f.dir, "internal/plan", "internal/forecast", "internal/control", "internal/dispatch", "internal/fleet") {
			continue
		}
		for _, spec := range f.ast.Imports {
			if strings.HasPrefix(spec.Path.Value, `"k8s.io/`) || strings.HasPrefix(spec.Path.Value, `"sigs.k8s.io/`) {
				t.Errorf("%s imports %s", f.at(spec.Pos()), spec.Path.Value)
			}
		}
	}
}

// TestTheTableIsWrittenDown keeps CONTRIBUTING.md and this table the same.
func TestTheTableIsWrittenDown(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| ([^|]*) \\|")
	written := map[string][2]string{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		written[m[1]] = [2]string{strings.TrimSpace(m[2]), strings.TrimSpace(m[3])}
	}
	for _, l := range layers {
		want := [2]string{l.level, inWords(l)}
		got, ok := written[l.dir]
		if !ok || got != want {
			t.Errorf("CONTRIBUTING.md: want the row\n| `%s` | %s | %s |\ngot %q", l.dir, want[0], want[1], got)
		}
		delete(written, l.dir)
	}
	for dir := range written {
		t.Errorf("CONTRIBUTING.md has a row for %s, which the table in test/lint has not", dir)
	}
}

func inWords(l layer) string {
	if len(l.may) == 0 {
		return "the standard library"
	}
	var names []string
	for _, m := range l.may {
		names = append(names, strings.TrimPrefix(m, "internal/"))
	}
	return strings.Join(names, ", ")
}
