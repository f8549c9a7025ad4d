package kube

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// grace is how long a boot waits before the word of a node autoscaler that
// nothing will come is believed: one round of Cluster Autoscaler (its default
// --scan-interval), since the first word is often that of a round under way.
const grace = 10 * time.Second

// The events by which node autoscalers speak of pods, and of CapacityBuffers.
const (
	// cluster-autoscaler/processors/status/eventing_scale_up_processor.go.
	reasonTriggered    = "TriggeredScaleUp"
	reasonNotTriggered = "NotTriggerScaleUp"
	// The autoscaler of GKE, where the provider has run out of machines.
	reasonFailed = "FailedScaleUp"
	// Karpenter, beside the scheduler, which uses the same reason.
	reasonUnfit    = "FailedScheduling"
	fromKarpenter  = "karpenter"
	reasonCapacity = "InsufficientCapacityError"
)

// verdicts returns what node autoscalers last said of objects, by name, where
// that is that nothing will come.
func verdicts(ctx context.Context, o *Options, kind string, names []string) (map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	type word struct {
		at      time.Time
		version string // of two words of one second, the later is the newer
		bad     bool
		text    string
	}
	last := map[string]word{}
	for _, reason := range []string{reasonNotTriggered, reasonFailed, reasonUnfit, reasonTriggered} {
		selector := "reason=" + reason + ",involvedObject.kind=" + kind
		if reason == reasonUnfit {
			selector += ",source=" + fromKarpenter
		}
		l, err := o.Client.CoreV1().Events(o.Namespace).List(ctx, metav1.ListOptions{FieldSelector: selector})
		if err != nil {
			return nil, fault("list", "events", err)
		}
		for i := range l.Items {
			e := &l.Items[i]
			name := e.InvolvedObject.Name
			if e.Reason != reason || e.InvolvedObject.Kind != kind || !slices.Contains(names, name) {
				continue
			}
			if reason == reasonUnfit && e.Source.Component != fromKarpenter && e.ReportingController != fromKarpenter {
				continue
			}
			before := last[name]
			if at := saidAt(e); at.After(before.at) || at.Equal(before.at) && !older(e.ResourceVersion, before.version) {
				last[name] = word{at: at, version: e.ResourceVersion, bad: reason != reasonTriggered, text: reason + ": " + e.Message}
			}
		}
	}
	out := map[string]string{}
	for name, w := range last {
		if w.bad {
			out[name] = w.text
		}
	}
	return out, nil
}

// saidAt is when an event was last seen.
func saidAt(e *corev1.Event) time.Time {
	at := e.CreationTimestamp.Time
	for _, t := range []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time} {
		if t.After(at) {
			at = t
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	return at
}
