package kube

import (
	"context"
	"maps"
	"net/url"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"muster.dev/muster/internal/fleet"
)

// classes are the RuntimeClasses of the cluster, looked up once; where that is
// not allowed, those that were named.
type classes struct {
	mu    sync.Mutex
	found map[fleet.Runtime]string
}

// handlers are the usual names of runtimes in a node's container runtime.
var handlers = map[string]fleet.Runtime{
	"runsc": fleet.RuntimeGVisor, "gvisor": fleet.RuntimeGVisor, "runc": fleet.RuntimeRunc, "crun": fleet.RuntimeCrun,
}

func (c *classes) known(ctx context.Context, o Options) map[fleet.Runtime]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.found != nil {
		return c.found
	}
	found := map[fleet.Runtime]string{}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	list, err := o.Client.NodeV1().RuntimeClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		o.Logger.Info("runtime classes cannot be listed; those of the configuration are used", "error", err)
	} else {
		for i := range list.Items {
			r, ok := handlers[list.Items[i].Handler]
			if name := list.Items[i].Name; ok && (found[r] == "" || name < found[r]) {
				found[r] = name
			}
		}
	}
	maps.Copy(found, o.Pods.RuntimeClasses)
	if err == nil || !passing(err) { // else it is looked for again
		c.found = found
	}
	return found
}

// hostOf is the host of the gateway's address, which was checked.
func hostOf(door string) string {
	u, err := url.Parse(door)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
