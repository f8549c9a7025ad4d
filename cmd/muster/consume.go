package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/operator"
)

// consumeOptions are the flags of `muster consume`: those of `muster serve`,
// some of which say nothing here, with a fleet of the cluster.
type consumeOptions struct {
	serveOptions
	fleet string
}

func newConsumeCommand() *cobra.Command {
	var o consumeOptions
	c := &cobra.Command{
		Use:   "consume",
		Short: "Carry sandboxes of one fleet of a cluster, beside others that do (spec.consumers)",
		Long: `Carry sandboxes of one fleet: create them, hold their connections, lease and run
the tasks in them, as the control plane that leads says.

A fleet with spec.consumers has several of these. The control plane starts them as
a Deployment of its own pod's image, settings and account; started by hand, they
need the same PostgreSQL database (--store), the API's token ($MUSTER_TOKEN or
--token-file), and --gateway-address as the control plane has them. Runners and the
control plane reach this process at the port of --gateway-listen and $POD_IP, or
the address that --gateway-listen names. It takes the flags of ` + "`muster serve`" + `.

At SIGTERM it leases nothing more and waits until others have taken over what it
carries, at most 30 s; the tasks go on all the while. It ends by itself when the
fleet has no consumers any more.`,
		Example: `  muster consume --fleet team-a/agents --store postgres://muster@db/muster --gateway-address muster-gateway.muster.svc:7443`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runConsume(ctx, o, cmd)
		},
	}
	f := c.Flags()
	o.flags(f)
	f.StringVar(&o.fleet, "fleet", "", "`NAMESPACE/NAME` of the Fleet")
	for _, name := range []string{"runner", "runtimes", "on-stop", "namespace", "lease", "drain-timeout"} { // of the control plane alone
		if err := f.MarkHidden(name); err != nil {
			panic(err) // a flag of that name is gone
		}
	}
	return c
}

// check reads the fleet's name and refuses what consumers cannot work with.
func (o *consumeOptions) check() (operator.Key, error) {
	namespace, name, ok := strings.Cut(o.fleet, "/")
	switch {
	case !ok || namespace == "" || name == "" || strings.Contains(name, "/"):
		return operator.Key{}, usageError("--fleet %q: want NAMESPACE/NAME of a Fleet in the cluster", o.fleet)
	case !strings.HasPrefix(o.store, "postgres://") && !strings.HasPrefix(o.store, "postgresql://"):
		return operator.Key{}, usageError("--store: consumers share the control plane's PostgreSQL database; want its postgres:// URL")
	case o.gateway.address == "":
		return operator.Key{}, usageError(noGateway)
	case (o.gateway.cert == "") != (o.gateway.key == ""):
		return operator.Key{}, usageError(certAndKey)
	}
	return operator.Key{Namespace: namespace, Name: name}, nil
}

// address is where runners and the control plane reach this process.
func (o *consumeOptions) address(podIP string) (string, error) {
	host, port, err := net.SplitHostPort(o.gateway.listen)
	if err != nil {
		return "", usageError("--gateway-listen %q: want [host]:port", o.gateway.listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = podIP
	}
	if host == "" {
		return "", usageError("--gateway-listen %q names no address that others could reach, and $POD_IP is empty; set one of the two", o.gateway.listen)
	}
	return net.JoinHostPort(host, port), nil
}

func runConsume(ctx context.Context, o consumeOptions, cmd *cobra.Command) error {
	key, err := o.check()
	if err != nil {
		return err
	}
	address, err := o.address(os.Getenv("POD_IP"))
	if err != nil {
		return err
	}
	c, err := o.daemon(cmd)
	if err != nil {
		return err
	}
	if c.token == "" {
		return usageError("the API's token is missing: want the control plane's in $MUSTER_TOKEN, or --token-file")
	}
	c.store.connections = consumerConnections
	klog.SetSlogLogger(c.log.With("component", "client-go"))
	k, err := openCluster(o.serveOptions, c)
	if err != nil {
		return err
	}
	return k.consume(ctx, key, address)
}

// consumerConnections is the pool of a consumer to each of store and archive: it
// writes for a part of the fleet, and there may be many of them.
const consumerConnections = 6

// consumerName is a name that no other process has or will have.
func consumerName() string {
	host := os.Getenv("POD_NAME")
	if host == "" {
		host, _ = os.Hostname()
		host = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return host + "-" + hex.EncodeToString(b[:])
}

// consume carries sandboxes of a fleet until ctx ends or it has no consumers any
// more.
func (k *cluster) consume(ctx context.Context, key operator.Key, address string) error {
	g, err := openGround(&k.c)
	if err != nil {
		return err
	}
	defer g.close()
	// The address outlives ctx, for the hand-over.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	f, life, err := openFront(life, &front{ground: g, ended: make(chan struct{}), carries: key.String()}, &k.c)
	if err != nil {
		return err
	}
	defer f.stop()
	k.front = f
	k.log.Info("serving", "address", g.address(), "fleet", key.String(), "doorway", address)
	keys, err := k.awaitKeys(ctx)
	if keys == nil {
		return err
	}
	l, doorway, err := k.openDoorway(ctx, keys)
	if err != nil {
		return err
	}
	doorway.Handler = passedOn(f, doorway.Handler)
	return withDoorway(life, l, doorway, func(life context.Context) error {
		// What ends life ends the work, too, but what ends ctx ends it in order.
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(life, stop)()
		return (&carrying{k: k, key: key, address: address}).run(ctx, life)
	})
}

// awaitKeys waits until a control plane has made the keys; nil when ctx ended
// before.
func (k *cluster) awaitKeys(ctx context.Context) (*planeKeys, error) {
	for said := false; ; said = true {
		keys, err := k.planeKeys(ctx, readKeys)
		switch {
		case err == nil:
			return keys, nil
		case ctx.Err() != nil:
			return nil, nil //nolint:nilnil // it was told to end
		case !errors.Is(err, fleet.ErrUnavailable):
			return nil, err
		case !said:
			k.log.Warn("waiting for the control plane", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// passedOn lets what other processes of the control plane pass on reach the API,
// and everything else the gateway.
func passedOn(f *front, runners http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/fleets/") {
			f.Forwarded(w, r)
			return
		}
		runners.ServeHTTP(w, r)
	})
}
