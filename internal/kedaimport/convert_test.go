package kedaimport

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew")

func show(fleets []Converted, others []string) string {
	var b strings.Builder
	for _, c := range fleets {
		fmt.Fprintf(&b, "--- # %s\n%s", c.From, c.YAML)
		for _, n := range c.Notes {
			fmt.Fprintf(&b, "# %s: %s: %s\n", n.Kind, n.At, n.Why)
		}
	}
	for _, o := range others {
		fmt.Fprintf(&b, "# not read: %s\n", o)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	met := map[string]bool{}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fleets, others, err := Convert(src)
			if err != nil {
				t.Fatal(err)
			}
			for kind := range queues {
				met[kind] = met[kind] || bytes.Contains(src, []byte("type: "+kind+"\n"))
			}
			for _, c := range fleets {
				f, err := v1alpha1.ParseFleet([]byte(c.YAML))
				if err != nil {
					t.Errorf("%s is no Fleet: %v\n%s", c.From, err, c.YAML)
				} else if f.Spec.Mode != v1alpha1.ModeScale {
					t.Errorf("mode %s", f.Spec.Mode)
				}
			}
			got := show(fleets, others)
			if strings.Contains(got, "hunter2") {
				t.Errorf("shows a credential:\n%s", got)
			}
			golden := strings.TrimSuffix(name, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, kind := range Kinds() {
		if !met[kind] {
			t.Errorf("no test has a trigger of type %s", kind)
		}
	}
}

// TestNothingVanishes: a field that is not known is noted wherever it stands.
func TestNothingVanishes(t *testing.T) {
	for kind := range queues {
		src := fmt.Sprintf(`
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: a, odd1: 1}
odd2: 2
spec:
  odd3: 3
  advanced: {odd4: 4}
  triggers: [{type: %s, odd5: 5, metadata: {odd6: 6}, authenticationRef: {name: b, odd7: 7}}]
---
kind: TriggerAuthentication
metadata: {name: b}
spec: {odd8: 8, secretTargetRef: [{parameter: odd9, name: c, key: d, odd10: 10}]}
`, kind)
		fleets, _, err := Convert([]byte(src))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		got := show(fleets, nil)
		for i := range 10 {
			if !strings.Contains(got, fmt.Sprintf("odd%d", i+1)) {
				t.Errorf("%s: odd%d vanished:\n%s", kind, i+1, got)
			}
		}
	}
}

func TestWrong(t *testing.T) {
	for src, want := range map[string]string{
		"":              "no ScaledObject",
		"kind: Service": "no ScaledObject",
		"[1":            "line 1",
		"- 1":           "document 1 is no object",
		"kind: ScaledObject\nmetadata: {name: x}\nspec: {triggers: [{type: cpu}]}":                                                       "ScaledObject x: has no trigger that becomes a queue (cpu)",
		"kind: ScaledObject\nmetadata: {name: x}":                                                                                        "ScaledObject x: has no trigger",
		"kind: ScaledObject\nmetadata: {name: x}\nspec: {triggers: [{type: temporal, metadata: {endpoint: \"a:99999\", taskQueue: q}}]}": "what comes of it is no Fleet",
	} {
		_, _, err := Convert([]byte(src))
		if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", src, err, want)
		}
	}
}

func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		fleets, _, err := Convert(src)
		if err != nil && !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%v is not ErrInvalid", err)
		}
		for _, c := range fleets {
			if c.Fleet == nil || c.YAML == "" {
				t.Errorf("half a result: %+v", c)
			}
		}
	})
}
