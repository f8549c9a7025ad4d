package kubetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// watch is what this package knows of the cluster: its pods and nodes.
type watch struct {
	pods  corelisters.PodLister
	nodes corelisters.NodeLister
}

// newWatch returns once pods and nodes are known; changed is called with the
// key of each pod that changes.
func newWatch(ctx context.Context, c kubernetes.Interface, changed func(key string)) (*watch, error) {
	f := informers.NewSharedInformerFactory(c, 0)
	w := &watch{pods: f.Core().V1().Pods().Lister(), nodes: f.Core().V1().Nodes().Lister()}
	enqueue := func(o any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
			changed(key)
		}
	}
	_, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, o any) { enqueue(o) }, DeleteFunc: enqueue,
	})
	if err != nil {
		return nil, fmt.Errorf("watch the pods: %w", err)
	}
	f.Core().V1().Nodes().Informer()
	f.Start(ctx.Done())
	synced, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for kind, ok := range f.WaitForCacheSync(synced.Done()) {
		if !ok {
			return nil, errors.New("watch the cluster: " + kind.String() + " are not known after 30 s")
		}
	}
	return w, nil
}

func (w *watch) allPods() []*corev1.Pod {
	pods, err := w.pods.List(labels.Everything())
	if err != nil {
		panic(err) // of a cache: cannot be
	}
	return pods
}

func (w *watch) allNodes() []*corev1.Node {
	nodes, err := w.nodes.List(labels.Everything())
	if err != nil {
		panic(err) // of a cache: cannot be
	}
	return nodes
}
