package scaler

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	autoscaling "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
)

// scaleObject is what /scale answers.
type scaleObject = autoscaling.Scale

// clients reaches the API server and the workers.
type clients struct {
	kube   kubernetes.Interface
	scales scale.ScalesGetter
	mapper meta.ResettableRESTMapper
	meta   metadata.Interface
	web    *http.Client

	resource *found // where the target is served
}

// found remembers what discovery said.
type found struct {
	sync.Mutex
	gr   schema.GroupResource
	at   string // version
	root bool   // it belongs to no namespace
}

func dial(config *rest.Config) (clients, error) {
	k, err := kubernetes.NewForConfig(config)
	if err != nil {
		return clients{}, fmt.Errorf("make a client: %w", err)
	}
	disco := memory.NewMemCacheClient(k.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(disco)
	scales, err := scale.NewForConfig(rest.CopyConfig(config), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(disco))
	if err != nil {
		return clients{}, fmt.Errorf("make a client of /scale: %w", err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return clients{}, fmt.Errorf("make a client of metadata: %w", err)
	}
	return clients{kube: k, scales: scales, mapper: mapper, meta: objects, web: asker(), resource: &found{}}, nil
}

// asker is the client that asks workers: bounded, and where a worker redirects
// to is none of our business.
func asker() *http.Client {
	t := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: time.Second}
	return &http.Client{
		Transport: t, Timeout: time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// where is the resource of the target, looked up once, and its namespace; that
// is empty where it has none.
func (c *clients) where(o *Options) (schema.GroupResource, string, error) {
	c.resource.Lock()
	defer c.resource.Unlock()
	if c.resource.gr.Resource == "" {
		if err := c.discover(o); err != nil {
			return schema.GroupResource{}, "", err
		}
	}
	if c.resource.root {
		return c.resource.gr, "", nil
	}
	return c.resource.gr, o.Namespace, nil
}

// discover asks the API server what the target is served as.
func (c *clients) discover(o *Options) error {
	gv, err := schema.ParseGroupVersion(o.Target.APIVersion)
	if err != nil {
		return fmt.Errorf("read target.apiVersion: %w", err)
	}
	m, err := c.mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: o.Target.Kind}, gv.Version)
	if err != nil {
		c.mapper.Reset() // it may be installed by the next time
		if meta.IsNoMatchError(err) {
			return fmt.Errorf("the cluster serves no %s of %s (is its definition installed?): %w", o.Target.Kind, o.Target.APIVersion, fleet.ErrNotFound)
		}
		return fmt.Errorf("look up %s of %s: %w: %w", o.Target.Kind, o.Target.APIVersion, err, fleet.ErrUnavailable)
	}
	c.resource.at = m.Resource.Version
	c.resource.gr, c.resource.root = m.Resource.GroupResource(), m.Scope != nil && m.Scope.Name() == meta.RESTScopeNameRoot
	return nil
}

// get reads the target's /scale.
func (c *clients) get(ctx context.Context, o *Options) (*scaleObject, error) {
	gr, ns, err := c.where(o)
	if err != nil {
		return nil, err
	}
	sc, err := c.scales.Scales(ns).Get(ctx, gr, o.Target.Name, metav1.GetOptions{})
	if err != nil {
		return nil, call{"get", gr, "scale", o}.wrap(err)
	}
	return sc, nil
}

// set writes replicas onto what get returned.
func (c *clients) set(ctx context.Context, o *Options, sc *scaleObject, n int) error {
	gr, ns, err := c.where(o)
	if err != nil {
		return err
	}
	sc = sc.DeepCopy()
	sc.Spec.Replicas = int32(n) //nolint:gosec // bounded by the plan, far below 2^31
	if _, err := c.scales.Scales(ns).Update(ctx, gr, sc, metav1.UpdateOptions{FieldManager: kube.Owner}); err != nil {
		return call{"update", gr, "scale", o}.wrap(err)
	}
	return nil
}

// writer names who last wrote the replicas, Muster left out; /scale does not
// say. Empty where that cannot be told, which includes that a role does not
// allow to read the target itself: it is for people only.
func (c *clients) writer(ctx context.Context, o *Options) string {
	gr, ns, err := c.where(o)
	if err != nil {
		return ""
	}
	m, err := c.meta.Resource(gr.WithVersion(c.resource.at)).Namespace(ns).Get(ctx, o.Target.Name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	var who string
	var latest time.Time
	for _, f := range m.ManagedFields {
		replicas := f.Subresource == "scale" || f.FieldsV1 != nil && strings.Contains(f.FieldsV1.String(), `"f:replicas"`)
		if !replicas || f.Manager == kube.Owner {
			continue
		}
		if f.Time == nil { // writes by way of /scale have no time, and take the replicas over from others
			return f.Manager
		}
		if !f.Time.Time.Before(latest) {
			who, latest = f.Manager, f.Time.Time
		}
	}
	return who
}

// call is a request, for the error that names it.
type call struct {
	verb string
	gr   schema.GroupResource
	sub  string // subresource; may be empty
	o    *Options
}

// wrapAny is wrap for an error that may be nil.
func (c call) wrapAny(err error) error {
	if err == nil {
		return nil
	}
	return c.wrap(err)
}

func (c call) wrap(err error) error {
	resource := c.gr.Resource
	if c.sub != "" {
		resource += "/" + c.sub
	}
	op := fmt.Sprintf("%s %s for %s in namespace %s", c.verb, resource, c.o.Target, c.o.Namespace)
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %w: Muster's role needs verb %q on resource %q of API group %q: %w", op, fleet.ErrDenied, c.verb, resource, c.gr.Group, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w: no such object, or it has no /scale: %w", op, fleet.ErrNotFound, err)
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s: %w: %w", op, fleet.ErrConflict, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return fmt.Errorf("%s: %w: %w", op, fleet.ErrInvalid, err)
	default:
		return fmt.Errorf("%s: %w: %w", op, fleet.ErrUnavailable, err)
	}
}
