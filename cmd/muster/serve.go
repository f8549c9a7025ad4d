package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"muster.dev/muster/internal/client"
)

// serveOptions are the flags of `muster serve`.
type serveOptions struct {
	dataDir  string
	listen   string
	store    string
	logLevel string
	hosts    []string
	token    string

	fleetFile string
	runner    string
	runtimes  string
	onStop    string
	parallel  int

	kubernetes  bool
	kubeconfig  string
	context     string
	namespace   string
	lease       string
	runnerImage string
	drain       time.Duration
	gateway     gatewayOptions
}

// gatewayOptions say where runners in a cluster dial in.
type gatewayOptions struct {
	listen, address, cert, key string
}

func newServeCommand() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane: of a cluster's fleets, or of one fleet with a store of your choice",
		Long: `Run the control plane.

With --kubernetes it runs the Fleet objects of a cluster, each with an API below
/fleets/NAMESPACE/NAME (and, where there is only one, at the root). Several
replicas elect a leader by a Lease; the others stand by and answer 503. A second
control plane in the same namespace needs a Lease of another name (--lease) and
fleets of another namespace: it stands by while another one runs its fleets.

With --fleet FILE it runs one fleet on this machine, as ` + "`muster up`" + ` does, with
the store that --store names. Several on one PostgreSQL database elect a leader.

The API's token is $MUSTER_TOKEN, else that of --token-file, else that of the data
directory, which is made on the first start.`,
		Example: `  muster serve --kubernetes --namespace agents --gateway-address muster-gateway.muster.svc:7443
  muster serve --fleet fleet.yaml --store postgres://muster@db/muster`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runServe(ctx, o, cmd)
		},
	}
	c.Flags().StringVar(&o.fleetFile, "fleet", "", "the fleet's YAML `file`, for a fleet on this machine")
	o.flags(c.Flags())
	return c
}

// flags are those of a control plane and, as far as they concern them, of its
// consumers, which are started with the same words.
func (o *serveOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.dataDir, "data", "", "data `directory`; default $MUSTER_HOME, /var/lib/muster for root, else ~/.local/state/muster")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7433", "`address` of the HTTP API; port 0 picks a free one")
	f.StringVar(&o.store, "store", "", "sqlite:PATH or postgres://…; default: SQLite in the data directory. With several fleets each has a file, or a schema, of its own")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringSliceVar(&o.hosts, "host", nil, "a `name` that the API is reached by, beside localhost, addresses, and the names of Services of this namespace; may be repeated")
	f.StringVar(&o.token, "token-file", "", "`file` with the API's token, at least 32 characters")
	f.StringVar(&o.runner, "runner", "", "the muster-runner `program`, for a fleet on this machine; default: beside muster, else on PATH")
	f.StringVar(&o.runtimes, "runtimes", "", "`directory` with runc, crun or runsc, searched before PATH")
	f.StringVar(&o.onStop, "on-stop", "keep", "running tasks of a fleet on this machine when muster stops: keep, drain (wait for them) or cancel")
	f.IntVar(&o.parallel, "parallel-starts", 0, "sandboxes of a fleet started at once; 0: from the number of cores, and 128 in a cluster")
	f.BoolVar(&o.kubernetes, "kubernetes", false, "run the Fleet objects of a Kubernetes cluster")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` that says where the cluster is; default: the pod's service account, $KUBECONFIG, ~/.kube/config")
	f.StringVar(&o.context, "context", "", "`context` of the kubeconfig")
	f.StringVar(&o.namespace, "namespace", "", "`namespace` of the fleets; all: every namespace; default: our own")
	f.StringVar(&o.lease, "lease", "muster", "`name` of the Lease by which replicas elect a leader; control planes of one namespace each need their own, and fleets of their own")
	f.StringVar(&o.runnerImage, "runner-image", "", "the `image` that holds /muster-runner, for sandboxes and for the pods that hold nodes; default $MUSTER_RUNNER_IMAGE")
	f.DurationVar(&o.drain, "drain-timeout", 10*time.Minute, "how long tasks of a deleted fleet may go on, where its annotation muster.dev/drain-timeout says nothing")
	f.StringVar(&o.gateway.listen, "gateway-listen", ":7443", "`address` where runners in the cluster dial in")
	f.StringVar(&o.gateway.address, "gateway-address", "", "`host:port` by which they reach it")
	f.StringVar(&o.gateway.cert, "gateway-cert", "", "PEM `file` of the gateway's certificate, with its authority last; default: one of our own making")
	f.StringVar(&o.gateway.key, "gateway-key", "", "PEM `file` of its key")
}

const (
	certAndKey = "--gateway-cert and --gateway-key belong together"
	noGateway  = "--gateway-address is missing: the host:port by which sandboxes reach this process, such as muster-gateway.muster.svc:7443"
)

// check refuses flags that contradict each other.
func (o *serveOptions) check() error {
	switch {
	case o.kubernetes && o.fleetFile != "":
		return usageError("--kubernetes and --fleet exclude each other: the fleets of a cluster are its Fleet objects")
	case !o.kubernetes && o.fleetFile == "":
		return usageError("want --kubernetes, for the fleets of a cluster, or --fleet FILE, for one on this machine")
	case o.kubernetes && o.gateway.address == "":
		return usageError(noGateway)
	case (o.gateway.cert == "") != (o.gateway.key == ""):
		return usageError(certAndKey)
	case o.kubernetes && len(validation.IsDNS1123Subdomain(o.lease)) > 0:
		return usageError("--lease %q is no name of an object: want lower-case letters, digits, - and ., at most 253, such as muster", o.lease)
	case o.drain < 0:
		return usageError("--drain-timeout %s is negative", o.drain)
	}
	switch o.onStop {
	case "keep", "drain", "cancel":
		return nil
	}
	return usageError("--on-stop %q is unknown; want keep, drain or cancel", o.onStop)
}

func runServe(ctx context.Context, o serveOptions, cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	c, err := o.daemon(cmd)
	if err != nil {
		return err
	}
	if o.kubernetes {
		return serveCluster(ctx, o, c)
	}
	loaded, err := loadFleet(o.fleetFile, c.dir)
	if err != nil {
		return err
	}
	c.fleet, c.written, c.files = loaded.fleet, loaded.written, loaded.files
	return serveFleet(ctx, c)
}

// daemon is what the flags say of any process of a control plane.
func (o *serveOptions) daemon(cmd *cobra.Command) (daemonConfig, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return daemonConfig{}, usageError("--log-level %q is unknown; want debug, info, warn or error", o.logLevel)
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	dir, err := prepareDataDir(o.dataDir)
	if err != nil {
		return daemonConfig{}, err
	}
	store, err := parseStore(o.store, dir)
	if err != nil {
		return daemonConfig{}, err
	}
	token, err := serveToken(o.token, os.Getenv("MUSTER_TOKEN"))
	if err != nil {
		return daemonConfig{}, err
	}
	return daemonConfig{
		dir: dir, listen: o.listen, token: token, hosts: serveHosts(o.hosts), store: store, runner: o.runner, runtimes: o.runtimes,
		onStop: o.onStop, parallel: o.parallel, log: log,
	}, nil
}

// serveToken is the API's token as given from outside; empty: the data
// directory's.
func serveToken(file, env string) (string, error) {
	token, from := strings.TrimSpace(env), "$MUSTER_TOKEN"
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", &client.Error{Text: "read the token: " + err.Error(), Cause: err, Hint: "check --token-file", Kind: client.ErrUsage}
		}
		token, from = strings.TrimSpace(string(b)), file
	}
	if (token != "" || file != "") && len(token) < 32 {
		return "", usageError("the token from %s has %d characters; want at least 32", from, len(token))
	}
	return token, nil
}

// serveHosts adds the names that Services of our namespace have. A Service's
// name is not known here; whoever can make one for us in this namespace is
// trusted with more than that.
func serveHosts(given []string) []string {
	ns := os.Getenv("POD_NAMESPACE")
	if ns == "" {
		return given
	}
	out := append([]string{}, given...)
	for _, name := range []string{"muster", os.Getenv("MUSTER_SERVICE")} {
		if name != "" {
			out = append(out, name, name+"."+ns, name+"."+ns+".svc", name+"."+ns+".svc.cluster.local")
		}
	}
	return out
}

// identity tells this process from every other.
func identity() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return fmt.Sprintf("%s_%d_%x", host, os.Getpid(), time.Now().UnixNano())
}
