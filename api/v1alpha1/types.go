package v1alpha1

// APIVersion is what apiVersion must say.
const APIVersion = "muster.dev/v1alpha1"

// The kinds a document may have.
const (
	KindFleet    = "Fleet"
	KindTask     = "Task"
	KindSchedule = "Schedule"
)

// Metadata names an object.
type Metadata struct {
	// Name has 1-63 characters: lower-case letters, digits and "-".
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Namespace and Annotations are those of an object in a Kubernetes cluster;
	// elsewhere they are only kept.
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Fleet is a fleet of agents and the rules that size it.
type Fleet struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Metadata   Metadata  `json:"metadata"`
	Spec       FleetSpec `json:"spec"`
}

// FleetSpec is what a fleet should be.
type FleetSpec struct {
	// Mode is run (default): Muster runs the tasks; scale: others take them from
	// the queue, and Muster says how many workers and nodes there should be, for
	// KEDA and whoever asks; shadow: the same, only to compare.
	Mode      string     `json:"mode,omitempty" enum:"run,scale,shadow"`
	Queue     Queue      `json:"queue,omitempty"`
	Templates []Template `json:"templates" minItems:"1" maxItems:"1000"`
	Objective Objective  `json:"objective,omitempty"`
	Scaling   Scaling    `json:"scaling,omitempty"`
	Capacity  Capacity   `json:"capacity,omitempty"`
	Nodes     Nodes      `json:"nodes,omitempty"`
	Cost      Cost       `json:"cost,omitempty"`
	Tenants   []Tenant   `json:"tenants,omitempty" maxItems:"1000"`
	Secrets   Secrets    `json:"secrets,omitempty"`
	Webhooks  Webhooks   `json:"webhooks,omitempty"`
	Retention Retention  `json:"retention,omitempty"`
	Workers   Workers    `json:"workers,omitempty"`
	KEDA      *KEDA      `json:"keda,omitempty"`
	Targets   []Target   `json:"targets,omitempty" maxItems:"64"`
	// Consumers are processes that carry the fleet's sandboxes, in a cluster, where
	// one does not suffice; left out: the control plane's leader does.
	Consumers *Consumers `json:"consumers,omitempty"`
}

// KEDA serves KEDA's external-scaler protocol, so that a ScaledObject or
// ScaledJob can take what the fleet should be as its metric.
type KEDA struct {
	// Listen is an address such as 127.0.0.1:7434 or :7434.
	Listen string `json:"listen"`
	// Cert and Key are PEM files of the server's certificate; ClientCA of those
	// who may sign clients' certificates, which are then asked for. Without any the
	// service is in the clear, and open to whoever reaches it.
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
	ClientCA string `json:"clientCA,omitempty"`
}

// Workers describes workers that others run, with mode: scale and shadow.
type Workers struct {
	// Startup is how long one takes from being asked for to taking its first
	// task, on a node that is there. Default 5s.
	Startup string `json:"startup,omitempty" kube:"duration"`
	// Actual says where the number of workers that there are can be read, to
	// compare with. Its value is taken as that number.
	Actual *Actual `json:"actual,omitempty"`
}

// Actual is a source of one number: exactly one of the two.
type Actual struct {
	Prometheus *PrometheusSignal `json:"prometheus,omitempty"`
	HTTP       *HTTPSignal       `json:"http,omitempty"`
}

// Template is what a sandbox is made from.
type Template struct {
	Name string `json:"name" kube:"name"`
	// Runtime is auto (default), gvisor, runc or crun on one machine; auto,
	// kubernetes (the cluster's own), gvisor or kata (by RuntimeClass) in a cluster.
	Runtime string `json:"runtime,omitempty" enum:"auto,gvisor,runc,crun,kata,kubernetes"`
	// Image is host (default), a path, or an OCI reference; in a cluster a
	// reference, and required.
	Image     string            `json:"image,omitempty" kube:"text=512"`
	Resources Resources         `json:"resources,omitempty"`
	Network   Network           `json:"network,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
	Repos     []string          `json:"repos,omitempty"`
	Prepare   []string          `json:"prepare,omitempty"`
	Mounts    []Mount           `json:"mounts,omitempty"`
	MaxAge    string            `json:"maxAge,omitempty" kube:"duration"` // default 6h; 0 never
	Timeouts  Timeouts          `json:"timeouts,omitempty"`
	Min       int               `json:"min,omitempty" minimum:"0"` // smallest warm pool of this template
}

// Resources are limits. Quantities are written as in Kubernetes.
type Resources struct {
	CPUs   Quantity `json:"cpus,omitempty" doc:"Cores: 1, 0.5, 500m; default 1"`
	Memory Quantity `json:"memory,omitempty" doc:"Default 2Gi"`
	Pids   int      `json:"pids,omitempty" minimum:"8" maximum:"4194304" doc:"Processes and threads; default 512"`
	Disk   Quantity `json:"disk,omitempty" doc:"Writable layer; default 10Gi"`
	Files  int      `json:"files,omitempty" minimum:"64" maximum:"1048576" doc:"Open files per process; default 4096"`
	Log    Quantity `json:"log,omitempty" doc:"Log kept per task; default 64Mi"`
}

// Network is what a sandbox may reach.
type Network struct {
	Mode string `json:"mode,omitempty" enum:"none,proxy,open" doc:"none is loopback only, proxy reaches what allow lists, open is the node's network; default none"`
	// Allow lists host names, "*.example.com" or "host:port". In a task, mode
	// and lists that are left out are the template's.
	Allow []string `json:"allow,omitempty" doc:"Host names, *.example.com or host:port"`
	// that may be reached through the proxy nevertheless.
	AllowPrivate []string `json:"allowPrivate,omitempty" doc:"Names, addresses or ranges that may be reached though they are private"`
}

// Mount shows a host path, read-only, inside a sandbox.
type Mount struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// Timeouts bound a task; Go durations ("90s", "2h"). "0" means no bound.
type Timeouts struct {
	Queue   string `json:"queue,omitempty" doc:"Submitted to claimed; default 24h" kube:"duration"`
	Startup string `json:"startup,omitempty" doc:"Sandbox creation and setup; default 60s" kube:"duration"`
	Run     string `json:"run,omitempty" doc:"The command; default 2h" kube:"duration"`
	Idle    string `json:"idle,omitempty" doc:"Without output; default 0, no bound" kube:"duration"`
}

// Objective is what the fleet is sized for.
type Objective struct {
	StartP99    string `json:"startP99,omitempty" kube:"duration"`    // default 5s
	ReactWithin string `json:"reactWithin,omitempty" kube:"duration"` // default 60s
}

// Scaling is how the fleet weighs money against waiting; what is left out is
// the planner's default. `muster tune` finds values on a fleet's own history.
type Scaling struct {
	LateShare    float64 `json:"lateShare,omitempty" minimum:"0.0001" maximum:"0.5" doc:"Share of tasks that may wait longer than objective.startP99: more allow for fewer nodes; default 0.008"`
	LatePriceMax float64 `json:"latePriceMax,omitempty" minimum:"50" maximum:"100000" doc:"Most node-seconds that preventing one late start may cost; default 250"`
	KeepFactor   float64 `json:"keepFactor,omitempty" minimum:"0.1" maximum:"100" doc:"What a node that is there is worth, as a multiple of one to be booted; default 5"`
	WarmQuantile float64 `json:"warmQuantile,omitempty" minimum:"0.5" maximum:"0.9999" doc:"Quantile of the arrivals in one lead time that the warm stock covers; default 0.99"`
	HoldWarm     string  `json:"holdWarm,omitempty" doc:"How long a warm stock outlives its cause, 1s to 24h; default 2m" kube:"duration"`
}

// Capacity bounds the fleet.
type Capacity struct {
	Sandboxes Range   `json:"sandboxes,omitempty"`
	Floors    []Floor `json:"floors,omitempty" maxItems:"1000"`
}

// Range is a minimum (of warm sandboxes over all pools of the default
// template) and a maximum (of all sandboxes).
type Range struct {
	Min int `json:"min,omitempty" minimum:"0"`                  // default 0
	Max int `json:"max,omitempty" minimum:"1" maximum:"100000"` // default 200
}

// Floor raises the minimum at the times of a cron expression.
type Floor struct {
	Cron     string `json:"cron"`
	Timezone string `json:"timezone,omitempty"` // IANA name; default UTC
	For      string `json:"for" kube:"duration"`
	Min      int    `json:"min" minimum:"1"`
	Template string `json:"template,omitempty"` // default: the first template
}

// Nodes says where sandboxes run.
type Nodes struct {
	// Provider is host (default with mode: run): this machine; kubernetes (default
	// with mode: run in a cluster): the nodes of a cluster; external (default
	// with mode: scale and shadow): something else brings nodes, and Muster says
	// how many.
	Provider string `json:"provider,omitempty" enum:"host,kubernetes,external"`
	// Boot is how long a node takes from being asked for to ready, until it is
	// measured; Min and Max are how few and how many there may be. With provider:
	// kubernetes and external (which has no Min). Defaults 45s, 0 and no bound.
	Boot string `json:"boot,omitempty" kube:"duration"`
	Min  int    `json:"min,omitempty" minimum:"0" maximum:"100000"`
	Max  int    `json:"max,omitempty" minimum:"1" maximum:"100000"`
	// Kubernetes is where in the cluster sandboxes run, and how, with provider:
	// kubernetes.
	Kubernetes *KubernetesNodes `json:"kubernetes,omitempty"`
	// Reserve is what the host keeps for itself.
	ReserveCPUs   Quantity `json:"reserveCPUs,omitempty"`   // default 0
	ReserveMemory Quantity `json:"reserveMemory,omitempty"` // default 512Mi
	// Slots bounds sandboxes on a node; default from memory and Overcommit, and 8
	// with provider: kubernetes and external.
	Slots int `json:"slots,omitempty" minimum:"1" maximum:"100000"`
	// OvercommitCPU and OvercommitMemory say how far limits may exceed the
	// machine; 1 is not at all. Defaults 8 and 2: agents wait most of the time.
	OvercommitCPU    float64 `json:"overcommitCPU,omitempty" minimum:"0.1" maximum:"1000"`
	OvercommitMemory float64 `json:"overcommitMemory,omitempty" minimum:"0.1" maximum:"100"`
}

// Tenant is a team with a share of the fleet. A task belongs to the tenant
// named by its label "tenant", else "team", else to "default".
type Tenant struct {
	Name       string  `json:"name"`
	Weight     float64 `json:"weight,omitempty" minimum:"0.001" maximum:"1000000"` // default 1
	MaxRunning int     `json:"maxRunning,omitempty" minimum:"0"`                   // 0: no bound
	// Budget bounds what its tasks are charged; the other tenants go on.
	Budget *TenantBudget `json:"budget,omitempty"`
}

// Secrets says where named secrets come from. They are read at claim time
// and never logged or stored.
type Secrets struct {
	// Dir is a directory with one file per secret, mode 0600 or 0400.
	Dir string `json:"dir,omitempty"`
	// Env allows secrets from the control plane's environment, as
	// MUSTER_SECRET_<NAME>.
	Env bool `json:"env,omitempty"`
	// Kubernetes names a Secret in the fleet's namespace, each key of which is a
	// secret; in a cluster, where it is the only place.
	Kubernetes string `json:"kubernetes,omitempty" kube:"object"`
}

// Retention says how long finished tasks are kept. Default 720h; "0" keeps
// them for ever.
type Retention struct {
	Tasks string `json:"tasks,omitempty" kube:"duration"`
}

// Task is a task as a document.
type Task struct {
	APIVersion string   `json:"apiVersion,omitempty"`
	Kind       string   `json:"kind,omitempty"`
	Metadata   Metadata `json:"metadata,omitempty"` // name and labels, merged into the spec's
	Spec       TaskSpec `json:"spec"`
}

// TaskSpec is what an agent should do.
type TaskSpec struct {
	Name           string            `json:"name,omitempty" doc:"For people; also found by muster commands"`
	Labels         map[string]string `json:"labels,omitempty" doc:"key=value, as in Kubernetes; the label tenant, else team, names who the task belongs to"`
	Template       string            `json:"template,omitempty" doc:"What its sandbox is made from; default: the template prepared for the repository, else the first"`
	Repo           *Repo             `json:"repo,omitempty"`
	Prompt         string            `json:"prompt,omitempty" doc:"Handed to the command in $MUSTER_PROMPT and the file $MUSTER_PROMPT_FILE"`
	Input          *TaskInput        `json:"input,omitempty" doc:"Bytes for the command, in the file $MUSTER_INPUT_FILE and where else it says"`
	Command        []string          `json:"command" doc:"The program and its arguments; no shell is added"`
	Setup          []string          `json:"setup,omitempty" doc:"Shell commands before the command"`
	Env            map[string]string `json:"env,omitempty" doc:"Further environment variables"`
	Secrets        []string          `json:"secrets,omitempty" doc:"Names of secrets, which become environment variables of the same name"`
	Image          string            `json:"image,omitempty" doc:"host, a path or an OCI reference; default: the template's"`
	Resources      *Resources        `json:"resources,omitempty" doc:"Limits that differ from the template's"`
	Network        *Network          `json:"network,omitempty" doc:"Where it differs from the template's"`
	Timeouts       *Timeouts         `json:"timeouts,omitempty" doc:"Where they differ from the template's"`
	Budget         *TaskBudget       `json:"budget,omitempty"`
	Retries        *Retries          `json:"retries,omitempty"`
	Priority       int               `json:"priority,omitempty" minimum:"-1000" maximum:"1000" doc:"Larger first"`
	Artifacts      []string          `json:"artifacts,omitempty" doc:"Files to keep, as patterns below the workspace (** crosses directories)"`
	Webhook        string            `json:"webhook,omitempty" doc:"Told of the task's end, by POST"`
	IdempotencyKey string            `json:"idempotencyKey,omitempty" doc:"A repeated submission with the same key returns the first task"`
	NotBefore      string            `json:"notBefore,omitempty" doc:"Delays the start: RFC 3339, or +10m"`
}

// TaskInput is bytes for the command: text or base64.
type TaskInput struct {
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty" doc:"For bytes that are no text"`
	To     string `json:"to,omitempty" enum:"file,stdin,env" doc:"file (default): only $MUSTER_INPUT_FILE; stdin: the command's standard input, too; env: a variable, too"`
	Name   string `json:"name,omitempty" doc:"Name of the variable, with to: env"`
}

// Repo is what a task works on.
type Repo struct {
	URL   string `json:"url" doc:"https, http, ssh, git or file URL, user@host:path, or an absolute path"`
	Ref   string `json:"ref,omitempty" doc:"Branch, tag or commit; default: the default branch"`
	Depth int    `json:"depth,omitempty" minimum:"-1" maximum:"1000000" doc:"Commits to fetch; default 1, -1 is the full history"`
}

// TaskBudget bounds the money of one task.
type TaskBudget struct {
	MaxUSD float64 `json:"maxUSD,omitempty" minimum:"0" maximum:"1000000" doc:"0 is no bound"`
}

// Retries bounds attempts. Infrastructure losses are always retried.
type Retries struct {
	Max     *int   `json:"max,omitempty" minimum:"0" maximum:"100" doc:"Further attempts; default 3"`
	OnExit  bool   `json:"onExit,omitempty" doc:"Also after a non-zero exit of the command"`
	Backoff string `json:"backoff,omitempty" doc:"Before the first retry, then doubling up to 5m; default 1s" kube:"duration"`
}

// Schedule submits a task at the times of a cron expression.
type Schedule struct {
	APIVersion string       `json:"apiVersion,omitempty"`
	Kind       string       `json:"kind,omitempty"`
	Metadata   Metadata     `json:"metadata,omitempty"`
	Spec       ScheduleSpec `json:"spec"`
}

// ScheduleSpec says when and what.
type ScheduleSpec struct {
	Cron     string   `json:"cron" doc:"Five fields: minute hour day month weekday"`
	Timezone string   `json:"timezone,omitempty" doc:"IANA name; default UTC"`
	Paused   bool     `json:"paused,omitempty" doc:"Fires nothing"`
	Task     TaskSpec `json:"task"`
}
