package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/fleet"
)

// Options says which cluster to look at, and what for.
type Options struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace is that of the fleets.
	Namespace string
	// Account is the control plane's service account, namespace/name: whether it
	// may do what the control plane does is asked by SubjectAccessReview. Empty:
	// that of the control plane that is installed, else, or where you may not ask
	// for another, your own, by SelfSubjectAccessReview.
	Account string
	Needs   Needs
	// Dial reaches the gateway; nil: it is not tried, since a Service can be
	// reached from inside of the cluster only.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	Now  func() time.Time // nil: time.Now
}

// Needs is what a fleet asks of a cluster; the zero value asks for nothing in
// particular, and is judged as a fleet with defaults.
type Needs struct {
	Fleet        string            // name; empty: no fleet was given
	NodeSelector map[string]string // of the nodes for agents
	Headroom     string            // auto, buffer, placeholder, karpenter, none
	NodePool     string            // with karpenter
	Warm         string            // auto, pods, agent-sandbox
	// Runtimes of the templates, and the RuntimeClass of each that has one.
	Runtimes       []fleet.Runtime
	RuntimeClasses map[fleet.Runtime]string
	// PriorityClass of sandboxes (empty: the cluster's default), SeatClass of
	// the pods that bring nodes.
	PriorityClass, SeatClass string
	ServiceAccount           string // of sandboxes
	// Sandboxes is the most at once, 0: unknown; Each what the largest asks for.
	Sandboxes int
	Each      fleet.Resources
	Secrets   []string // that tasks and queues take values from
	Targets   bool     // drives objects through /scale
	Consumers bool     // has consumers
}

// within bounds one question to the API server.
const within = 15 * time.Second

// examiner is one examination.
type examiner struct {
	Options
	served func(group, version string) (map[string]bool, error)
}

// Examine asks every question and returns the findings in a fixed order. Where
// the API server does not answer there is one finding, which says so.
func Examine(ctx context.Context, o Options) doctor.Report {
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &examiner{Options: o}
	e.served = e.discover()
	first := e.apiServer(ctx)
	r := doctor.Report{Findings: []doctor.Finding{first}}
	if first.Level != doctor.Fail {
		e.choose(ctx)
		r.Findings = append(r.Findings, e.all(ctx)...)
	}
	r.Level = doctor.Worst(r.Findings)
	return r
}

func (e *examiner) all(ctx context.Context) []doctor.Finding {
	checks := []func(context.Context) []doctor.Finding{
		e.fleets, e.namespace, e.rights, e.controlPlane, e.gateway,
		e.warm, e.runtimes, e.autoscaler, e.headroom, e.nodes, e.priorities,
		e.quotas, e.limits, e.network, e.metrics,
	}
	found := make([][]doctor.Finding, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			found[i] = check(ctx)
		})
	}
	wg.Wait()
	var all []doctor.Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// discover returns what looks up the resources of a group and version, each
// once; a group that is not served has none.
func (e *examiner) discover() func(group, version string) (map[string]bool, error) {
	type answer struct {
		names map[string]bool
		err   error
	}
	var mu sync.Mutex
	known := map[string]answer{}
	return func(group, version string) (map[string]bool, error) {
		mu.Lock()
		defer mu.Unlock()
		gv := group + "/" + version
		if a, ok := known[gv]; ok {
			return a.names, a.err
		}
		a := answer{names: map[string]bool{}}
		list, err := e.Client.Discovery().ServerResourcesForGroupVersion(gv)
		switch {
		case err == nil:
			for _, r := range list.APIResources {
				a.names[r.Name] = true
			}
		case !apierrors.IsNotFound(err):
			a.err = fmt.Errorf("discover %s: %w", gv, err)
		}
		known[gv] = a
		return a.names, a.err
	}
}

func one(f doctor.Finding) []doctor.Finding { return []doctor.Finding{f} }

func ok(check, found string) doctor.Finding {
	return doctor.Finding{Check: check, Level: doctor.OK, Found: found}
}

func warn(check, found, means, mend string) doctor.Finding {
	return doctor.Finding{Check: check, Level: doctor.Warn, Found: found, Means: means, Mend: mend}
}

func fail(check, found, means, mend string) doctor.Finding {
	return doctor.Finding{Check: check, Level: doctor.Fail, Found: found, Means: means, Mend: mend}
}

// unread is the finding where a question was not answered: what is not known
// is neither right nor missing.
func unread(check, what string, err error) doctor.Finding {
	f := warn(check, "unknown: "+what+" could not be read: "+err.Error(), "nothing can be said about it", "ask again when the API server answers")
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		f.Found = "unknown: you may not read " + what
		f.Mend = "ask with an account that may, such as the cluster's administrator"
	case errors.Is(err, context.DeadlineExceeded):
		f.Found = "unknown: " + what + " was not answered within " + within.String()
	}
	return f
}

var everything = metav1.ListOptions{}
