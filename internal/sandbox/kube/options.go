package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/egress"
)

// Options shape an adapter: one per fleet.
type Options struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface // for metrics.k8s.io; nil: usage is unknown
	// AgentSandbox takes the pods from the warm pools of the agent-sandbox
	// project instead of making them; see AgentSandboxServed. Needs Dynamic.
	AgentSandbox bool
	// Owner is the Fleet object, where there is one: pools and policies go with
	// it.
	Owner     *metav1.OwnerReference
	Namespace string // of the pods
	Fleet     string // name of the fleet, a label value
	// Sessions knows the secrets of runners; a *gateway.Gateway.
	Sessions Sessions
	// Exchange is the one that the gateway's Peers is.
	Exchange *Exchange
	Door     Door
	// RunnerImage holds the program /muster-runner.
	RunnerImage string
	Pods        PodOptions
	// Proxy adjusts the proxies of network mode proxy.
	Proxy  egress.Options
	Logger *slog.Logger     // nil: discarded
	Clock  func() time.Time // nil: time.Now
}

// Sessions is what this package needs of a gateway.
type Sessions interface {
	Session(uid string) string // the secret of a pod's runner
	Forget(uid string)         // the pod is gone
}

// Door is the way from pods to the gateway.
type Door struct {
	URL string // https://host:port
	CA  []byte // certificates the runner trusts, PEM
	// IP of the host, written into the pods' /etc/hosts: sandboxes have no name
	// service unless their network is open. Empty: the URL has an address.
	IP string
	// Who may be reached: the pods of the control plane, and addresses where it
	// runs outside of the cluster. One of the two is needed. Consumers are
	// reached by the same labels, in the same namespace and at the same port; a
	// pod of theirs whose role (kube.LabelRole) is RoleConsumer is reached where
	// the labels name RoleControl.
	Namespace string
	Labels    map[string]string
	CIDRs     []string
	Port      int32 // the port of the control plane's pods, not of a Service
}

// PodOptions is what the operator of the cluster says of all pods of a fleet.
type PodOptions struct {
	NodeSelector map[string]string
	Tolerations  []corev1.Toleration // beside those of the dedicated taint
	// RuntimeClasses gives the RuntimeClass of a runtime. What is not listed is
	// looked for in the cluster by handler: runsc is gvisor.
	RuntimeClasses   map[fleet.Runtime]string
	ImagePullSecrets []string
	PriorityClass    string
	// ServiceAccount whose token names the pod to us; it needs no rights.
	// Empty: default.
	ServiceAccount string
	Scheduler      string // empty: the cluster's own
	Labels         map[string]string
	Annotations    map[string]string
	// UserNamespaces asks for a user namespace per pod (hostUsers: false). The
	// nodes' kernel and runtime must have them.
	UserNamespaces bool
	// NodeLost is how long a pod stays when its node does not answer any more;
	// 0: a minute.
	NodeLost time.Duration
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Pods.NodeLost <= 0 {
		o.Pods.NodeLost = time.Minute
	}
	if o.Pods.ServiceAccount == "" {
		o.Pods.ServiceAccount = "default"
	}
	return o
}

func (o Options) check() error {
	var errs []error
	wrong := func(field, what, right string) {
		errs = append(errs, &fleet.FieldError{Field: field, Wrong: what, Right: right})
	}
	if o.AgentSandbox && o.Dynamic == nil {
		errs = append(errs, errors.New("agent-sandbox needs a dynamic client"))
	}
	if o.Client == nil || o.Sessions == nil || o.Exchange == nil {
		errs = append(errs, errors.New("client, sessions and exchange are needed"))
	}
	if problems := validation.IsDNS1123Label(o.Namespace); len(problems) > 0 {
		wrong("namespace", fmt.Sprintf("%q", o.Namespace), problems[0])
	}
	if problems := validation.IsValidLabelValue(o.Fleet); len(problems) > 0 || o.Fleet == "" {
		wrong("fleet", fmt.Sprintf("%q", o.Fleet), "a name of at most 63 letters, digits and dashes")
	}
	if u, err := url.Parse(o.Door.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		wrong("door.url", fmt.Sprintf("%q", o.Door.URL), "https://host:port of the gateway")
	}
	if len(o.Door.Labels) == 0 && len(o.Door.CIDRs) == 0 {
		wrong("door", "names nobody", "the labels of the control plane's pods, or addresses")
	}
	if o.Door.Port < 1 || o.Door.Port > 65535 {
		wrong("door.port", fmt.Sprint(o.Door.Port), "1 to 65535")
	}
	if o.RunnerImage == "" {
		wrong("runnerImage", "is empty", "the image that holds /muster-runner")
	}
	return errors.Join(errs...)
}

// check refuses what can never become a pod.
func (s *Sandboxes) check(spec fleet.SandboxSpec) error {
	if !fleet.ValidID("s", string(spec.ID)) {
		return fmt.Errorf("%q is no sandbox id: %w", spec.ID, fleet.ErrInvalid)
	}
	r := spec.Resources
	for name, v := range map[string]int64{"milliCPU": r.MilliCPU, "memoryBytes": r.MemoryBytes, "diskBytes": r.DiskBytes} {
		if v <= 0 {
			return &fleet.FieldError{Field: "resources." + name, Wrong: fmt.Sprint(v), Right: "a positive number"}
		}
	}
	if spec.Image == "" || spec.Image == fleet.ImageHost {
		return never("image", fmt.Sprintf("%q is made of a machine's own files, which a cluster has not", fleet.ImageHost),
			"a reference such as registry.example/agent:1")
	}
	if len(spec.Mounts) > 0 {
		return never("mounts", fmt.Sprintf("%s is a path of a machine; pods of agents see none of their node", spec.Mounts[0].Source),
			"no mounts: put the files into the image, or fetch them in prepare")
	}
	if spec.Network.Mode == fleet.NetworkProxy {
		if _, err := egress.ParsePolicy(spec.Network); err != nil {
			return err
		}
	}
	return nil
}

// never is a template that no cluster can start: the tasks that wait for it
// are told.
func never(field, wrong, right string) error {
	return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: &fleet.FieldError{Field: field, Wrong: wrong, Right: right}}
}

// classFor picks the RuntimeClass of a runtime and what that gives; empty is
// the cluster's default.
func (s *Sandboxes) classFor(ctx context.Context, want fleet.Runtime) (class string, got fleet.Runtime, err error) {
	known := s.classes.known(ctx, s.o)
	switch want {
	case fleet.RuntimeAuto, "":
		if c := known[fleet.RuntimeGVisor]; c != "" {
			return c, fleet.RuntimeGVisor, nil
		}
		return known[fleet.RuntimeKubernetes], fleet.RuntimeKubernetes, nil
	case fleet.RuntimeKubernetes:
		return known[want], want, nil
	}
	if c := known[want]; c != "" {
		return c, want, nil
	}
	return "", "", never("runtime", fmt.Sprintf("this cluster has no RuntimeClass for %s", want),
		"auto or kubernetes, or a RuntimeClass made and named for it")
}
