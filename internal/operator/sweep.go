package operator

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"muster.dev/muster/internal/kube"
)

// owned is everything a fleet may have in its namespace. What makes others
// comes before what it makes.
var owned = []struct {
	schema.GroupVersionResource
	optional bool // not every cluster knows it, and not every Role has it
}{
	{schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxwarmpools"}, true},
	{schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxclaims"}, true},
	{schema.GroupVersionResource{Group: "extensions.agents.x-k8s.io", Version: "v1beta1", Resource: "sandboxtemplates"}, true},
	{schema.GroupVersionResource{Group: "autoscaling.x-k8s.io", Version: "v1beta1", Resource: "capacitybuffers"}, true},
	{schema.GroupVersionResource{Version: "v1", Resource: "podtemplates"}, true},
	{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, false},
	{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}, false},
}

// Sweep deletes whatever carries a fleet's labels in its namespace, and nothing
// else. It returns when it is asked for; an object may take a moment to go.
func Sweep(ctx context.Context, c dynamic.Interface, k Key) error {
	selector := labels.SelectorFromSet(labels.Set{kube.LabelOwner: kube.Owner, kube.LabelFleet: k.Name}).String()
	var errs []error
	for _, r := range owned {
		objects := c.Resource(r.GroupVersionResource).Namespace(k.Namespace)
		list, err := objects.List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			if !r.optional || !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
				errs = append(errs, fault("list", r.Resource, k.Namespace, err))
			}
			continue
		}
		for i := range list.Items {
			o := &list.Items[i]
			now, uid, how := int64(0), o.GetUID(), metav1.DeletePropagationBackground
			err := objects.Delete(ctx, o.GetName(), metav1.DeleteOptions{
				GracePeriodSeconds: &now, PropagationPolicy: &how, Preconditions: &metav1.Preconditions{UID: &uid},
			})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				errs = append(errs, fault("delete", r.Resource, k.Namespace, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what fleet %s had: %w", k, err)
	}
	return nil
}
