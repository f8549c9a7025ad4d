package operator

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/kube"
)

// recorder tells events at objects. Of one object it tells at most burst at
// once and then one each 1/qps seconds; similar ones become one with a count.
type recorder struct {
	broadcaster record.EventBroadcaster
	record.EventRecorder
}

const (
	eventBurst = 25
	eventQPS   = 1. / 30
)

func newRecorder(c kubernetes.Interface) *recorder {
	b := record.NewBroadcasterWithCorrelatorOptions(record.CorrelatorOptions{BurstSize: eventBurst, QPS: eventQPS})
	b.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: c.CoreV1().Events("")})
	return &recorder{b, b.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: kube.Owner})}
}

func (r *recorder) close() { r.broadcaster.Shutdown() }

// tell records what happened to a fleet.
func (r *recorder) tell(k Key, uid string, events []Event) {
	ref := &corev1.ObjectReference{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindFleet, Namespace: k.Namespace, Name: k.Name, UID: typesUID(uid),
	}
	for _, e := range events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		r.Event(ref, kind, e.Reason, clip(e.Message, 1024)) // the API's bound
	}
}
