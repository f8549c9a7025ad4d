package scaler

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/internal/kube"
)

// state is what is known of a worker.
type state int

const (
	idle    state = iota
	unknown       // does not report
	busy
)

// worker is a pod of the target.
type worker struct {
	name    string
	owner   types.UID // of its controller
	group   string    // of its controller's kind
	kind    string
	class   int // of a ReplicaSet the lower one goes first, whatever the costs
	ordinal int // of a StatefulSet
	state   state
	reports bool      // somehow
	said    bool      // by its annotation
	until   time.Time // busy until then; zero: not said
	leaving time.Time // marked since; zero: not marked
	cost    string    // the cost it has now, and the one it had before it was marked
	before  string
	ask     string // host:port that is asked; empty: nothing to ask
	drains  bool   // can be told to take no more work
}

// running says whether a process of the pod could have work.
func running(p *corev1.Pod) bool {
	if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodUnknown {
		return false
	}
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].State.Running != nil {
			return true
		}
	}
	// Nothing is said of the containers: it may be running.
	return len(p.Status.ContainerStatuses) == 0
}

// workers lists the pods of the target that its controller counts.
func (s *Scaler) workers(ctx context.Context, now time.Time, sc *scaleObject) ([]worker, error) {
	// A set without a selector would be all pods of the namespace.
	if sc.Status.Selector == "" {
		return nil, nil
	}
	list, err := s.c.kube.CoreV1().Pods(s.o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: sc.Status.Selector, ResourceVersion: "0"})
	if err != nil {
		return nil, call{"list", schema.GroupResource{Resource: "pods"}, "", &s.o}.wrap(err)
	}
	var out []worker
	for i := range list.Items {
		p := &list.Items[i]
		ref := metav1.GetControllerOf(p)
		if ref == nil || p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		out = append(out, s.worker(now, p, ref))
	}
	return out, nil
}

func (s *Scaler) worker(now time.Time, p *corev1.Pod, ref *metav1.OwnerReference) worker {
	w := worker{
		name: p.Name, owner: ref.UID, group: groupOf(ref.APIVersion), kind: ref.Kind, class: class(p), ordinal: -1,
		cost: p.Annotations[kube.AnnotationDeletionCost], before: p.Annotations[AnnotationCostBefore],
		drains: p.Annotations[AnnotationDrain] == "true",
	}
	if i := strings.LastIndexByte(p.Name, '-'); i >= 0 {
		if n, err := strconv.Atoi(p.Name[i+1:]); err == nil {
			w.ordinal = n
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, p.Annotations[AnnotationLeaving]); err == nil {
		w.leaving = at
	}
	if running(p) {
		s.reported(now, p, &w)
	}
	return w
}

// class orders pods as the controller of ReplicaSets does before it looks at
// costs: not assigned, then pending, unknown, running; not ready before ready.
func class(p *corev1.Pod) int {
	n := 0
	if p.Spec.NodeName != "" {
		n += 100
	}
	switch p.Status.Phase {
	case corev1.PodRunning:
		n += 20
	case corev1.PodUnknown:
		n += 10
	default:
	}
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			n++
		}
	}
	return n
}

// rule says who of a target goes first when it shrinks.
type rule int

const (
	anyone    rule = iota // its controller's choice, which we do not know
	byCost                // ReplicaSets: class, then the lowest deletion cost
	byOrdinal             // StatefulSets: the highest ordinal
)

// ruleOf follows from who controls the pods; mixed says that several sets do, as
// in the middle of a rollout.
func ruleOf(ws []worker) (r rule, mixed bool) {
	for i := range ws {
		if ws[i].owner != ws[0].owner {
			return anyone, true
		}
	}
	switch {
	case len(ws) == 0:
	case ws[0].kind == "ReplicaSet" && ws[0].group == "apps", ws[0].kind == "ReplicationController":
		r = byCost
	case ws[0].kind == "StatefulSet" && ws[0].group == "apps":
		r = byOrdinal
	}
	return r, false
}

// choose picks up to n workers to part with: not busy, and such that they are
// the first to go once they are marked. The result can be shorter than n.
func choose(ws []worker, r rule, n int) []*worker {
	all := make([]*worker, len(ws))
	for i := range ws {
		all[i] = &ws[i]
	}
	switch r {
	case byOrdinal:
		slices.SortFunc(all, func(a, b *worker) int { return cmp.Compare(b.ordinal, a.ordinal) })
	case byCost:
		// Within a class the marks decide: those that may go come first, of them
		// the ones that say that they are idle, of them the ones that are marked.
		slices.SortStableFunc(all, func(a, b *worker) int {
			return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.state, b.state),
				cmp.Compare(b2i(a.leaving.IsZero()), b2i(b.leaving.IsZero())), cmp.Compare(a.name, b.name))
		})
	case anyone:
		if slices.ContainsFunc(all, func(w *worker) bool { return w.state == busy }) {
			return nil
		}
	}
	// Whoever stands behind a busy one is not safe to ask for: the busy one would
	// go first.
	if i := slices.IndexFunc(all, func(w *worker) bool { return w.state == busy }); i >= 0 {
		all = all[:i]
	}
	return all[:min(n, len(all))]
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
