package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
	nkube "muster.dev/muster/internal/nodes/kube"
	"muster.dev/muster/internal/operator"
	"muster.dev/muster/internal/sandbox/gateway"
	skube "muster.dev/muster/internal/sandbox/kube"
)

// cluster is a control plane of a cluster's fleets.
type cluster struct {
	o         serveOptions
	c         daemonConfig
	log       *slog.Logger
	config    *rest.Config
	client    kubernetes.Interface
	dynamic   dynamic.Interface
	namespace string // our own
	image     string // of the runner
	front     *front

	// The following are there while this process leads.
	gateway  *gateway.Gateway
	exchange *skube.Exchange
	watch    *nkube.Watch
	door     skube.Door
	peers    http.RoundTripper // to the APIs of consumers
	owners   owners            // of sandboxes, in fleets with consumers
}

// serveCluster runs the fleets of a cluster, while it is this process's turn.
func serveCluster(ctx context.Context, o serveOptions, c daemonConfig) error {
	klog.SetSlogLogger(c.log.With("component", "client-go")) // what client-go says goes where ours does
	k, err := openCluster(o, c)
	if err != nil {
		return err
	}
	g, err := openGround(&k.c)
	if err != nil {
		return err
	}
	defer g.close()
	f, ctx, err := newFront(ctx, g, &k.c)
	if err != nil {
		return err
	}
	defer f.stop()
	k.front = f
	k.log.Info("serving", "address", g.address(), "namespace", k.namespace)
	return operator.Election{
		Client: k.client, Namespace: k.namespace, Name: o.lease, Fleets: k.fleets(),
		Identity: identity(), Pod: os.Getenv("POD_NAME"), Logger: k.log,
	}.Lead(ctx, k.lead)
}

// openCluster finds the cluster; nothing is asked of it yet.
func openCluster(o serveOptions, c daemonConfig) (*cluster, error) {
	config, namespace, err := kube.Access{Kubeconfig: o.kubeconfig, Context: o.context, UserAgent: "muster/" + version()}.Config()
	if err != nil {
		return nil, withHint(err, "run in a pod, or name the cluster with --kubeconfig")
	}
	if own := os.Getenv("POD_NAMESPACE"); own != "" {
		namespace = own
	}
	if c.parallel == 0 {
		c.parallel = 128 // a start only waits for others here
	}
	k := &cluster{o: o, c: c, log: c.log, config: config, namespace: namespace, image: o.runnerImage}
	if k.image == "" {
		k.image = os.Getenv("MUSTER_RUNNER_IMAGE")
	}
	if k.image == "" {
		return nil, usageError("--runner-image is missing: the image that holds /muster-runner, which sandboxes take it from")
	}
	if k.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	if k.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return k, nil
}

// fleets is the namespace whose fleets are run; empty: all.
func (k *cluster) fleets() string {
	switch k.o.namespace {
	case "":
		return k.namespace
	case "all":
		return ""
	}
	return k.o.namespace
}

// lead runs the fleets until ctx ends.
func (k *cluster) lead(ctx context.Context) error {
	keys, err := k.planeKeys(ctx, loadKeys)
	if err != nil {
		return err
	}
	l, doorway, err := k.openDoorway(ctx, keys)
	if err != nil {
		return err
	}
	op, err := operator.New(operator.Options{
		Client: k.client, Dynamic: k.dynamic, Namespace: k.fleets(), Start: k.start, Check: k.check, Past: k.past,
		DrainTimeout: k.o.drain, Logger: k.log,
		Plane: operator.Plane{Namespace: k.namespace, Pod: os.Getenv("POD_NAME")},
	})
	if err != nil {
		_ = l.Close()
		return err
	}
	ready := func(context.Context) error { return op.Ready() }
	k.front.ready.Store(&ready)
	k.front.leading.Store(true)
	defer k.front.leading.Store(false)

	return withDoorway(ctx, l, doorway, func(ctx context.Context) error {
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		wg.Go(func() { k.watch.Run(ctx) })
		wg.Go(func() { _ = giveBackStart(ctx) })
		return op.Run(ctx)
	})
}

// listenGateway opens the gateway's address. A replica that led a moment ago
// may still hold it, where several run on one machine.
func listenGateway(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--gateway-listen %q: %w", addr, err)
	}
	return l, nil
}

// findDoor is the way from pods to the gateway. Sandboxes have no name service:
// the address of a name is written into their hosts.
func (k *cluster) findDoor(ctx context.Context, ca []byte) (skube.Door, error) {
	host, port, err := net.SplitHostPort(k.o.gateway.address)
	if err != nil || host == "" || port == "" {
		return skube.Door{}, usageError("--gateway-address %q: want host:port such as muster-gateway.muster.svc:7443", k.o.gateway.address)
	}
	d := skube.Door{URL: "https://" + k.o.gateway.address, CA: ca}
	_, own, err := net.SplitHostPort(k.o.gateway.listen)
	n, perr := strconv.ParseInt(own, 10, 32)
	if err != nil || perr != nil || n < 1 || n > 65535 {
		return d, usageError("--gateway-listen %q: want [host]:port with a port from 1 to 65535", k.o.gateway.listen)
	}
	d.Port = int32(n)
	ip := net.ParseIP(host)
	if ip == nil {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		found, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
		if err != nil || len(found) == 0 {
			return d, fmt.Errorf("--gateway-address: the address of %s cannot be found: %w", host, err)
		}
		ip, d.IP = found[0], found[0].String()
	}
	if pod := os.Getenv("POD_NAME"); pod != "" {
		// Policies see pods, not the Service that stands for them.
		d.Namespace, d.Labels = k.namespace, map[string]string{kube.LabelRole: kube.RoleControl}
		return d, nil
	}
	bits := "/32"
	if ip.To4() == nil {
		bits = "/128"
	}
	d.CIDRs = []string{ip.String() + bits}
	return d, nil
}

// dedicated is the taint of nodes for agents.
var dedicated = corev1.Toleration{Key: kube.TaintDedicated, Operator: corev1.TolerationOpExists}

// anyNode selects the nodes that sandboxes can run on where none are named.
var anyNode = map[string]string{"kubernetes.io/os": "linux"}

// tolerations are those of a fleet's pods, beside the dedicated taint.
func tolerations(p *v1alpha1.KubernetesNodes) []corev1.Toleration {
	var out []corev1.Toleration
	for _, t := range p.Tolerations {
		out = append(out, corev1.Toleration{
			Key: t.Key, Operator: corev1.TolerationOperator(t.Operator), Value: t.Value, Effect: corev1.TaintEffect(t.Effect),
		})
	}
	return out
}

// agentSandbox tells whether warm sandboxes are those of agent-sandbox.
func (k *cluster) agentSandbox(warm string) (bool, error) {
	if warm == v1alpha1.WarmPods {
		return false, nil
	}
	served, err := skube.AgentSandboxServed(k.client.Discovery())
	if err == nil && !served && warm == v1alpha1.WarmAgentSandbox {
		return false, &fleet.FieldError{
			Field: "spec.nodes.kubernetes.warm", Wrong: "is agent-sandbox, whose resources this cluster does not serve",
			Right: "auto or pods, or agent-sandbox installed",
		}
	}
	return served, err
}
