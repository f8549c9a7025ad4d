package fleet

import "time"

// Runtime names how a sandbox is isolated.
type Runtime string

// The runtimes. RuntimeAuto picks the strongest that works here: gvisor, then
// runc, then crun.
const (
	RuntimeAuto       Runtime = "auto"
	RuntimeGVisor     Runtime = "gvisor"
	RuntimeRunc       Runtime = "runc"
	RuntimeCrun       Runtime = "crun"
	RuntimeKata       Runtime = "kata"       // in a cluster, by RuntimeClass
	RuntimeKubernetes Runtime = "kubernetes" // whatever the cluster runs pods with
	RuntimeFake       Runtime = "fake"       // tests only
)

// ImageHost is the image made of the host's own /usr, read-only.
const ImageHost = "host"

// NetworkMode names what a sandbox can reach.
type NetworkMode string

// The network modes.
const (
	NetworkNone  NetworkMode = "none"  // loopback only
	NetworkProxy NetworkMode = "proxy" // loopback, and allowed names through the proxy
	NetworkOpen  NetworkMode = "open"  // the node's network; must be asked for
)

// Network is what a sandbox may reach. Allow holds host names, "*.domain"
// patterns or "host:port"; meaningful in proxy mode only. AllowPrivate lists
// names or addresses in loopback, private or link-local ranges that may be
// reached nevertheless; those ranges are refused otherwise.
type Network struct {
	Mode         NetworkMode `json:"mode"`
	Allow        []string    `json:"allow,omitempty"`
	AllowPrivate []string    `json:"allowPrivate,omitempty"`
}

// Resources bound one sandbox. Zero means "not limited" only where said.
type Resources struct {
	MilliCPU    int64 `json:"milliCPU"`    // thousandths of a core; > 0
	MemoryBytes int64 `json:"memoryBytes"` // memory and swap together; > 0
	Pids        int64 `json:"pids"`        // processes and threads; > 0
	DiskBytes   int64 `json:"diskBytes"`   // writable layer: workspace, home, /tmp; > 0
	Files       int64 `json:"files"`       // open files per process (RLIMIT_NOFILE); > 0
	LogBytes    int64 `json:"logBytes"`    // log kept per task; what exceeds it is dropped and counted; > 0
}

// Timeouts bound the life of a task. Zero means no bound.
type Timeouts struct {
	Queue   time.Duration `json:"queue"`   // submitted to claimed
	Startup time.Duration `json:"startup"` // sandbox creation to ready, and setup
	Run     time.Duration `json:"run"`     // command start to exit
	Idle    time.Duration `json:"idle"`    // without output while running
}

// Mount makes a host path visible, read-only, inside the sandbox.
type Mount struct {
	Source string `json:"source"` // absolute host path
	Target string `json:"target"` // absolute path inside
}

// Template is what a sandbox is made from, parsed and defaulted.
type Template struct {
	Name      string            `json:"name"`
	Runtime   Runtime           `json:"runtime"`
	Image     string            `json:"image"`
	Resources Resources         `json:"resources"`
	Network   Network           `json:"network"`
	Env       map[string]string `json:"env,omitempty"`
	// Repos lists repository URLs the template is prepared for; a task that
	// names no template but one of these repos goes here.
	Repos    []string      `json:"repos,omitempty"`
	Prepare  []string      `json:"prepare,omitempty"` // shell commands, run before ready
	Mounts   []Mount       `json:"mounts,omitempty"`
	MaxAge   time.Duration `json:"maxAge"` // 0: never replaced for age
	Timeouts Timeouts      `json:"timeouts"`
	// Min is the smallest warm pool kept for this template.
	Min int `json:"min"`
	// Revision is a digest over everything above that shapes a sandbox; a
	// ready sandbox of another revision is stale and is replaced.
	Revision string `json:"revision"`
}

// PoolKey names a pool: sandboxes that are interchangeable. It is the name of
// the template, and for a task with resources, image or network of its own the
// name, "~" and a digest of the difference. Such a variant has no warm stock;
// its sandboxes are started for the demand there is.
type PoolKey string
