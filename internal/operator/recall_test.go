package operator

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	kubetest "muster.dev/muster/test/kube"
)

// outside is what the CRD takes and we do not: the API server knows no cron rule.
const outside = template + "capacity: {floors: [{cron: 0 25 * * *, for: 1h, min: 1}]}\n"

// ran makes an object that an earlier process has run.
func ran(t *testing.T, c *kubetest.Cluster, ns, name, spec string) *unstructured.Unstructured {
	t.Helper()
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	if _, err := fleets.Create(t.Context(), fleetOf(t, ns, name, spec), strict); err != nil {
		t.Fatal(err)
	}
	status := []byte(`{"status": {"endpoint": "/fleets/x", "queued": 0, "running": 0, "ready": 0, "starting": 0, "desired": 0, "nodes": 0}}`)
	u, err := fleets.Patch(t.Context(), name, types.MergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func revisionFrom(t *testing.T, number int64, ns, name, spec string) fleet.Revision {
	t.Helper()
	js, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	written, err := v1alpha1.WrittenInCluster(v1alpha1.Metadata{Name: name, Namespace: ns}, js)
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Revision{Number: number, Author: "ada", Spec: written}
}

func most(n string) string { return template + "capacity: {sandboxes: {max: " + n + "}}\n" }

// TestNewLeaderFindsInvalid: a process that has just begun to lead finds invalid
// objects. What ran before goes on from the store; what never ran waits; the
// others run.
func TestNewLeaderFindsInvalid(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	for _, name := range []string{"edited", "older", "unknown"} {
		ran(t, c, ns, name, outside)
	}
	for name, spec := range map[string]string{"fresh": outside, "well": template} {
		if _, err := fleets.Create(t.Context(), fleetOf(t, ns, name, spec), strict); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{kept: map[string][]fleet.Revision{
		"edited": {revisionFrom(t, 4, ns, "edited", most("7")), revisionFrom(t, 3, ns, "edited", most("6"))},
		// A newer version of Muster takes less than the one that kept these.
		"older": {revisionFrom(t, 2, ns, "older", outside), revisionFrom(t, 1, ns, "older", most("5"))},
		"fresh": {revisionFrom(t, 1, ns, "fresh", most("9"))}, // of another one of its name
	}}
	w.operate(t, c, c.Config, ns, Plane{})
	says := func(name, ready string, want ...string) {
		t.Helper()
		eventually(t, name+" says "+strings.Join(want, ", "), time.Minute, func(ctx context.Context) bool {
			s, _ := statusIn(ctx, c, ns, name)
			d := condition(s, v1alpha1.ConditionDegraded)
			for _, part := range want {
				if !strings.Contains(d.Message, part) {
					return false
				}
			}
			return s.Summary == summaryInvalid && d.Reason == "InvalidSpec" && condition(s, v1alpha1.ConditionReady).Status == ready
		})
	}
	const field = "spec.capacity.floors[0].cron"
	says("edited", "True", "revision 4, the last good spec, goes on", field, "; want ")
	says("older", "True", "revision 1, the last good spec, goes on", field)
	says("fresh", "False", field)
	says("unknown", "False", field)
	eventually(t, "the valid one runs", time.Minute, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "well")
		return s.Summary == summaryReady
	})
	if got := w.startedAs("edited"); len(got) != 1 || got[0].Spec.Spec.Capacity.Sandboxes.Max != 7 || got[0].Author != "ada" || got[0].UID == "" {
		t.Errorf("edited was started as %+v", got)
	}
	if got := w.startedAs("older"); len(got) != 1 || got[0].Spec.Spec.Capacity.Sandboxes.Max != 5 || !strings.Contains(got[0].Note, "revision 1 again") {
		t.Errorf("older was started as %+v", got)
	}
	for _, name := range []string{"fresh", "unknown"} {
		if s, _ := statusIn(t.Context(), c, ns, name); !strings.Contains(condition(s, v1alpha1.ConditionReady).Message, "no earlier one") || len(w.startedAs(name)) > 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// Mended, it is taken over by what runs; deleted, it is drained by it.
	patch(t, c, ns, "edited", map[string]any{"capacity": map[string]any{"floors": nil, "sandboxes": map[string]any{"max": 8}}})
	eventually(t, "it is mended", time.Minute, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "edited")
		return s.Summary == summaryReady && w.runnerOf("edited").has(func(r *fakeRunner) bool { return r.f.Spec.Spec.Capacity.Sandboxes.Max == 8 && r.f.Revision == 0 })
	})
	for _, name := range []string{"older", "unknown", "fresh"} {
		if err := fleets.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" is gone", time.Minute, func(ctx context.Context) bool {
			_, err := fleets.Get(ctx, name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	}
	if !w.runnerOf("older").has(func(r *fakeRunner) bool { return r.drained }) {
		t.Error("older went undrained")
	}
}

// TestDeletedWhileInvalid: what a new leader finds deleted and invalid is drained
// with what it ran by, once the store can be read, and not let go before.
func TestDeletedWhileInvalid(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	u := ran(t, c, ns, "agents", outside)
	u.SetFinalizers([]string{v1alpha1.DrainFinalizer})
	if _, err := fleets.Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := fleets.Delete(t.Context(), "agents", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w := &world{lost: errors.New("the database is away"), kept: map[string][]fleet.Revision{"agents": {revisionFrom(t, 1, ns, "agents", template)}}}
	w.operate(t, c, c.Config, ns, Plane{})
	eventually(t, "the condition says why it waits", time.Minute, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return strings.Contains(condition(s, v1alpha1.ConditionDegraded).Message, "read its last good spec: the database is away")
	})
	w.mu.Lock()
	w.lost = nil
	w.mu.Unlock()
	eventually(t, "it is gone", time.Minute, func(ctx context.Context) bool {
		_, err := fleets.Get(ctx, "agents", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	if !w.runnerOf("agents").has(func(r *fakeRunner) bool { return r.drained }) {
		t.Error("it went undrained")
	}
}

// TestRefusedHere: a change that this control plane cannot carry ends nothing, and
// is taken over once it can; a fleet that has nothing else is tried as it is.
func TestRefusedHere(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	w, _ := setUp(t, c, c.Config, ns)
	refuse := func(f Fleet) error {
		if f.Spec.Spec.HasConsumers() {
			return &fleet.FieldError{Field: "spec.consumers", Wrong: "need another store", Right: "none of them"}
		}
		return nil
	}
	w.mu.Lock()
	w.refuse = refuse
	w.mu.Unlock()
	fleets := c.Dynamic.Resource(Resource).Namespace(ns)
	for name, spec := range map[string]string{"agents": template, "lone": carried} {
		if _, err := fleets.Create(t.Context(), fleetOf(t, ns, name, spec), strict); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both are tried", time.Minute, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return s.Summary == summaryReady && len(w.startedAs("lone")) > 0
	})
	first := w.runnerOf("agents")
	patch(t, c, ns, "agents", map[string]any{"consumers": map[string]any{"replicas": 2}})
	eventually(t, "the condition says what is wrong", time.Minute, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return condition(s, v1alpha1.ConditionDegraded).Message == "the last good spec goes on; spec.consumers: need another store; want none of them" &&
			condition(s, v1alpha1.ConditionReady).Status == "True"
	})
	if w.runnerOf("agents") != first || first.has(func(r *fakeRunner) bool { return r.closed }) {
		t.Error("a change that cannot be carried ended what ran")
	}
	if s, _ := statusIn(t.Context(), c, ns, "lone"); s.Summary != summaryReady {
		t.Errorf("the one that has nothing else is %+v", s) // the test's Start takes everything
	}
	w.mu.Lock()
	w.refuse = nil
	w.mu.Unlock()
	eventually(t, "it is taken over by itself", time.Minute, func(ctx context.Context) bool {
		s, _ := statusIn(ctx, c, ns, "agents")
		return s.Summary == summaryReady && w.runnerOf("agents").has(func(r *fakeRunner) bool { return r.f.Spec.Spec.HasConsumers() })
	})
}

// TestFollowInvalid: who follows an object that is invalid from the first sees
// what ran before.
func TestFollowInvalid(t *testing.T) {
	c := cluster(t)
	ns := c.Namespace(t)
	ran(t, c, ns, "agents", outside)
	w := &world{lost: errors.New("the database is away"), kept: map[string][]fleet.Revision{"agents": {revisionFrom(t, 1, ns, "agents", carried)}}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f, err := Follow(ctx, c.Dynamic, Key{ns, "agents"}, w.past, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is said why nothing is known", time.Minute, func(context.Context) bool {
		_, err := f.Now()
		return err != nil && strings.Contains(err.Error(), "the database is away")
	})
	w.mu.Lock()
	w.lost = nil
	w.mu.Unlock()
	eventually(t, "the last good one is followed", time.Minute, func(context.Context) bool {
		now, err := f.Now()
		return err == nil && now.Spec.Spec.HasConsumers() && now.Revision == 1
	})
}

// startedAs are the starts of one fleet.
func (w *world) startedAs(name string) (out []Fleet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.started {
		if f.Name == name {
			out = append(out, f)
		}
	}
	return out
}

// runnerOf is the newest runner of one fleet.
func (w *world) runnerOf(name string) *fakeRunner {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.runners) - 1; i >= 0; i-- {
		r := w.runners[i]
		if r.has(func(r *fakeRunner) bool { return r.f.Name == name }) {
			return r
		}
	}
	return nil
}

func (r *fakeRunner) has(what func(*fakeRunner) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return what(r)
}
