package operator

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// written is what the object's status was last set to.
type written struct {
	status  v1alpha1.FleetStatus
	at      time.Time
	uid     string
	refused bool // said already that it cannot be
}

// The states in one word.
const (
	summaryReady    = "Ready"
	summaryStarting = "Starting"
	summaryDegraded = "Degraded"
	summaryInvalid  = "Invalid"
	summaryStopping = "Stopping"
)

// report takes the runner's report and writes what has changed of the status.
func (k *keeper) report(ctx context.Context) {
	if k.seen == nil {
		return
	}
	var r Report
	if k.runner != nil {
		r = k.runner.Report()
		k.op.r.tell(k.key, string(k.seen.GetUID()), r.Events)
		k.deploy(ctx, r.Consumers)
	}
	now := k.op.o.Clock()
	if k.status.uid != string(k.seen.GetUID()) {
		k.status = written{uid: string(k.seen.GetUID()), status: statusOf(k.seen.Object["status"])}
	}
	next := k.statusNow(now, &r)
	if equal(&k.status.status, &next) || now.Sub(k.status.at) < k.op.o.Every {
		return
	}
	k.write(ctx, now, next)
}

// statusOf reads what an earlier process wrote.
func statusOf(v any) v1alpha1.FleetStatus {
	var s v1alpha1.FleetStatus
	if b, err := json.Marshal(v); err == nil {
		_ = json.Unmarshal(b, &s) // what cannot be read is written anew
	}
	return s
}

// statusNow is what the status should be.
func (k *keeper) statusNow(now time.Time, r *Report) v1alpha1.FleetStatus {
	s := v1alpha1.FleetStatus{
		ObservedGeneration: k.seen.GetGeneration(), Sentence: clip(r.Sentence, 1024), Endpoint: r.Endpoint,
		Queued: r.Queued, Running: r.Running, Ready: r.Standby, Starting: r.Starting, Desired: r.Desired, Nodes: r.Nodes,
	}
	if s.Endpoint == "" {
		s.Endpoint = k.status.status.Endpoint // see hasRun
	}
	var carried struct {
		ready     bool
		is, wrong Problem
	}
	if r.Consumers != nil {
		carried.ready, carried.is, carried.wrong = k.consumersReady(r.Consumers)
	}
	var p Problem
	progress := Problem{"Steady", "the fleet is as its object says"}
	switch {
	case k.bad != nil:
		p, s.Summary = k.invalid(), summaryInvalid
	case k.failed != nil:
		p, s.Summary = failure(k.failed), summaryDegraded
	case r.Problem != (Problem{}):
		p, s.Summary = r.Problem, summaryDegraded
	case carried.wrong != (Problem{}):
		p, s.Summary = carried.wrong, summaryDegraded
	case k.runner == nil || !r.Ready:
		s.Summary = summaryStarting
	default:
		s.Summary = summaryReady
	}
	ready := Problem{"Working", "tasks are taken and run"}
	isReady := r.Ready
	if !isReady {
		ready = Problem{"NotReady", "it has not been started"}
		progress = Problem{"Starting", "taking over what is there"}
		if k.bad != nil && k.runner == nil {
			ready.Message = "its spec is invalid, and no earlier one goes on"
			progress = Problem{"Steady", "it waits for a valid spec"}
		}
	}
	if k.seen.GetDeletionTimestamp() != nil {
		s.Summary, isReady = summaryStopping, false
		ready = Problem{"Stopping", "the fleet is deleted: no more tasks are taken"}
		progress = Problem{"Draining", "running tasks may end, then sandboxes and nodes are given back"}
	}
	c := conditions{old: k.status.status.Conditions, now: now.UTC().Format(time.RFC3339), generation: s.ObservedGeneration}
	c.set(v1alpha1.ConditionReady, isReady, ready)
	c.set(v1alpha1.ConditionProgressing, progress.Reason != "Steady", progress)
	if p == (Problem{}) {
		c.set(v1alpha1.ConditionDegraded, false, Problem{"AsExpected", "nothing is wrong"})
	} else {
		c.set(v1alpha1.ConditionDegraded, true, p)
	}
	if r.Consumers != nil {
		c.set(v1alpha1.ConditionConsumersReady, carried.ready, carried.is)
	}
	s.Conditions = c.list
	return s
}

// failure is why a fleet does not run, as a reason.
func failure(err error) Problem {
	p := Problem{"Failed", clip(err.Error(), 8192)}
	switch {
	case errors.Is(err, fleet.ErrDenied):
		p.Reason = "Forbidden"
	case errors.Is(err, fleet.ErrInvalid):
		p.Reason = "InvalidSpec"
	case errors.Is(err, fleet.ErrUnavailable):
		p.Reason = "Unavailable"
	}
	return p
}

// conditions makes a list whose times are those of changes.
type conditions struct {
	old, list  []v1alpha1.Condition
	now        string
	generation int64
}

func (c *conditions) set(kind string, is bool, p Problem) {
	next := v1alpha1.Condition{
		Type: kind, Status: "False", ObservedGeneration: c.generation, LastTransitionTime: c.now, Reason: p.Reason, Message: p.Message,
	}
	if is {
		next.Status = "True"
	}
	for _, o := range c.old {
		if o.Type == kind && o.Status == next.Status {
			next.LastTransitionTime = o.LastTransitionTime
		}
	}
	c.list = append(c.list, next)
}

// equal compares but for the sentence, which changes with every second of a
// wait and comes along with what else changes.
func equal(a, b *v1alpha1.FleetStatus) bool {
	return slices.Equal(a.Conditions, b.Conditions) && a.ObservedGeneration == b.ObservedGeneration &&
		a.Summary == b.Summary && a.Endpoint == b.Endpoint && a.Queued == b.Queued && a.Running == b.Running &&
		a.Ready == b.Ready && a.Starting == b.Starting && a.Desired == b.Desired && a.Nodes == b.Nodes
}

// write sets the status. It is ours alone, so that no other's write is lost.
func (k *keeper) write(ctx context.Context, now time.Time, next v1alpha1.FleetStatus) {
	k.status.at = now // failures are no reason to hurry
	patch, err := json.Marshal(map[string]any{"status": next})
	if err == nil {
		_, err = k.op.o.Dynamic.Resource(Resource).Namespace(k.key.Namespace).Patch(ctx, k.key.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "muster"}, "status")
	}
	switch {
	case err == nil:
		k.status.status, k.status.refused = next, false
	case ctx.Err() != nil || apierrors.IsNotFound(err): // it is going
	case !k.status.refused:
		k.status.refused = true
		k.op.o.Logger.Error("cannot write the status of a fleet; trying again", "fleet", k.key.String(),
			"error", fault("patch", "fleets.muster.dev/status", k.key.Namespace, err))
	}
}

func typesUID(s string) types.UID { return types.UID(s) }

// clip shortens a text to most bytes.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = s[:most-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return strings.TrimSpace(s) + "…"
}
