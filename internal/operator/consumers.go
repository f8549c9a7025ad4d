package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"

	"muster.dev/muster/internal/fleet"
)

// Plane is this control plane's own pod, which consumers are made after.
type Plane struct {
	Namespace string
	Pod       string // empty: it runs outside of the cluster, and others start consumers
}

// Consumers is how the consumers of a fleet are, and how many there should be.
type Consumers struct {
	Wanted int    // 0: not known yet, so they stay as they are
	Reason string // why as many
	Live   int    // that told of late
}

// lookEvery is between two looks at a Deployment that should be as it was left.
const lookEvery = 5 * time.Second

// deployed keeps the Deployment of one fleet's consumers. All of it happens in
// its keeper's goroutine.
type deployed struct {
	wanted  int32
	uid     types.UID // of the Fleet it was made for
	written int64     // the generation that our last write left
	again   time.Time
	absent  bool  // known not to be there
	failed  error // of the last try
}

// plane reads our own pod, once: what of it consumers are made after does not
// change.
type plane struct {
	Plane
	mu  sync.Mutex
	pod *corev1.Pod
}

func (op *Operator) ownPod(ctx context.Context) (*corev1.Pod, error) {
	p := &op.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pod != nil {
		return p.pod, nil
	}
	pod, err := op.o.Client.CoreV1().Pods(p.Namespace).Get(ctx, p.Pod, metav1.GetOptions{})
	if err != nil {
		return nil, fault("get", "pods", p.Namespace, err)
	}
	p.pod = pod
	return pod, nil
}

// deploy brings the consumers' Deployment to what the report wants; nil: to
// nothing.
func (k *keeper) deploy(ctx context.Context, c *Consumers) {
	if k.op.plane.Pod == "" {
		return
	}
	d, now := &k.deployed, k.op.o.Clock()
	want := int32(0)
	if c != nil {
		want = int32(c.Wanted)
	}
	if c != nil && want == 0 {
		d.absent = false
		return
	}
	uid := k.seen.GetUID()
	if now.Before(d.again) && want == d.wanted && uid == d.uid || c == nil && d.absent {
		return
	}
	d.wanted, d.uid, d.again = want, uid, now.Add(lookEvery)
	var err error
	if c == nil {
		err = k.undeploy(ctx)
	} else {
		d.absent = false
		err = k.deployTo(ctx, want)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil && (d.failed == nil || d.failed.Error() != err.Error()) {
		k.op.o.Logger.Error("cannot keep the consumers of a fleet; trying again", "fleet", k.key.String(), "error", err)
	}
	d.failed = err
}

// undeploy removes the Deployment, where it is ours.
func (k *keeper) undeploy(ctx context.Context) error {
	if k.op.plane.Pod == "" {
		return nil
	}
	ns, name := k.op.plane.Namespace, deploymentName(k.op.plane.Namespace, k.key)
	api := k.op.o.Client.AppsV1().Deployments(ns)
	live, err := api.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err): // who may not look has made none
		k.deployed.absent = true
		return nil
	case err != nil:
		return fault("get", "deployments.apps", ns, err)
	case !isOurs(live.Labels, k.key):
		k.deployed.absent = true
		return nil
	}
	uid, how := live.UID, metav1.DeletePropagationBackground
	err = api.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &how, Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fault("delete", "deployments.apps", ns, err)
	}
	k.deployed.absent, k.deployed.written = true, 0
	return nil
}

// deployTo makes or mends the Deployment.
func (k *keeper) deployTo(ctx context.Context, replicas int32) error {
	ns, name := k.op.plane.Namespace, deploymentName(k.op.plane.Namespace, k.key)
	api := k.op.o.Client.AppsV1().Deployments(ns)
	live, err := api.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		live = nil
	case err != nil:
		return fault("get", "deployments.apps", ns, err)
	case !isOurs(live.Labels, k.key):
		return fmt.Errorf("the Deployment %s of namespace %s is not of this fleet; rename one of the two: %w", name, ns, fleet.ErrConflict)
	case live.Generation == k.deployed.written && *live.Spec.Replicas == replicas:
		return nil // nobody wrote since
	}
	pod, err := k.op.ownPod(ctx)
	if err != nil {
		return err
	}
	want, err := consumersOf(pod, k.key, k.deployed.uid, replicas)
	if err != nil {
		return err
	}
	got, err := api.Apply(ctx, want, metav1.ApplyOptions{FieldManager: "muster", Force: true})
	if err != nil {
		verb := "patch"
		if live == nil {
			verb = "create and patch"
		}
		return fault(verb, "deployments.apps", ns, err)
	}
	if live != nil && live.Generation != got.Generation && k.deployed.written != 0 {
		k.op.o.Logger.Info("the consumers of a fleet are as they should be again", "fleet", k.key.String(), "replicas", replicas)
	}
	k.deployed.written = got.Generation
	return nil
}

// consumersReady is the condition of consumers; the problem is what is wrong
// beyond waiting.
func (k *keeper) consumersReady(c *Consumers) (ready bool, is, wrong Problem) {
	switch {
	case k.deployed.failed != nil:
		wrong = failure(k.deployed.failed)
		if wrong.Reason == "Failed" && errors.Is(k.deployed.failed, fleet.ErrConflict) {
			wrong.Reason = "NotOurs"
		}
		return false, wrong, wrong
	case c.Wanted == 0:
		return false, Problem{"Starting", "how many consumers there should be is not known yet"}, Problem{}
	case c.Live < c.Wanted:
		text := fmt.Sprintf("%d of %d consumers are there", c.Live, c.Wanted)
		if k.op.plane.Pod == "" {
			text += "; this control plane runs outside of the cluster: start them yourself, with muster consume"
		}
		return false, Problem{"Starting", clip(text+why(c.Reason), 8192)}, Problem{}
	}
	// Without the numbers of the moment: nothing is written for what stays as it is.
	return true, Problem{"AsWanted", fmt.Sprintf("%d consumers are there", c.Wanted)}, Problem{}
}

func why(reason string) string {
	if reason == "" {
		return ""
	}
	return "; " + reason
}

// asApply turns a Deployment into what is applied of it: what is set.
func asApply(d *appsv1.Deployment) (*applyapps.DeploymentApplyConfiguration, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write the Deployment of consumers: %w", err)
	}
	out := &applyapps.DeploymentApplyConfiguration{}
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("write the Deployment of consumers: %w", err)
	}
	// A zero time and an empty status are no wishes.
	out.Status = nil
	if out.ObjectMetaApplyConfiguration != nil {
		out.CreationTimestamp = nil
	}
	if t := out.Spec.Template; t != nil && t.ObjectMetaApplyConfiguration != nil {
		t.CreationTimestamp = nil
	}
	return out, nil
}

// isOurs tells whether labels are those of a fleet's consumers.
func isOurs(have map[string]string, key Key) bool {
	for l, v := range consumerLabels(key) {
		if have[l] != v {
			return false
		}
	}
	return true
}
