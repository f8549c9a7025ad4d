package v1alpha1

import "time"

// The defaults, in one place. The types' comments say the same.
const (
	defaultMaxBacklog       = 1_000_000
	defaultVisibility       = 30 * time.Second
	defaultCPUs             = "1"
	defaultMemory           = "2Gi"
	defaultPids             = 512
	defaultDisk             = "10Gi"
	defaultFiles            = 4096
	defaultLog              = "64Mi"
	defaultMaxAge           = 6 * time.Hour
	defaultQueueTimeout     = 24 * time.Hour
	defaultStartup          = 60 * time.Second
	defaultRun              = 2 * time.Hour
	defaultStartP99         = 5 * time.Second
	defaultReactWithin      = 60 * time.Second
	defaultMaxSandboxes     = 200
	defaultReserveMemory    = "512Mi"
	defaultOvercommitCPU    = 8
	defaultOvercommitMemory = 2
	defaultRetention        = 720 * time.Hour
	defaultRetries          = 3
	defaultBackoff          = time.Second
	// DefaultTenant owns tasks without a label that names another.
	DefaultTenant = "default"
)

// Default fills in whatever was left out. It is idempotent.
func (f *Fleet) Default() {
	or(&f.APIVersion, APIVersion)
	or(&f.Kind, KindFleet)
	s := &f.Spec
	or(&s.Queue.Type, "embedded")
	or(&s.Queue.MaxBacklog, defaultMaxBacklog)
	or(&s.Queue.Visibility, text(defaultVisibility))
	for i := range s.Templates {
		s.Templates[i].Default()
	}
	or(&s.Objective.StartP99, text(defaultStartP99))
	or(&s.Objective.ReactWithin, text(defaultReactWithin))
	or(&s.Capacity.Sandboxes.Max, defaultMaxSandboxes)
	for i := range s.Capacity.Floors {
		or(&s.Capacity.Floors[i].Timezone, "UTC")
		if len(s.Templates) > 0 {
			or(&s.Capacity.Floors[i].Template, s.Templates[0].Name)
		}
	}
	or(&s.Mode, ModeRun)
	s.Nodes.fill(s.Mode)
	if s.Follows() {
		or(&s.Workers.Startup, text(defaultStartupOfWorkers))
	}
	for i := range s.Targets {
		s.Targets[i].fill()
	}
	if s.Consumers != nil {
		s.Consumers.fill()
	}
	for i := range s.Tenants {
		or(&s.Tenants[i].Weight, 1)
	}
	or(&s.Retention.Tasks, text(defaultRetention))
}

// fill completes the nodes of a fleet of this mode.
func (n *Nodes) fill(mode string) {
	if mode == ModeRun {
		or(&n.Provider, ProviderHost)
	} else {
		or(&n.Provider, ProviderExternal)
	}
	if n.Provider != ProviderHost {
		or(&n.Boot, text(defaultBoot))
		or(&n.Slots, defaultSlots)
	}
	if n.Provider == ProviderKubernetes {
		if n.Kubernetes == nil {
			n.Kubernetes = &KubernetesNodes{}
		}
		n.Kubernetes.fill()
		return // limits are requests there: nothing is promised twice
	}
	or(&n.ReserveCPUs, "0")
	or(&n.ReserveMemory, defaultReserveMemory)
	or(&n.OvercommitCPU, defaultOvercommitCPU)
	or(&n.OvercommitMemory, defaultOvercommitMemory)
}

// Default fills in whatever was left out of a template.
func (t *Template) Default() {
	or(&t.Runtime, "auto")
	or(&t.Image, "host")
	t.Resources.fill(Resources{
		CPUs: defaultCPUs, Memory: defaultMemory, Pids: defaultPids,
		Disk: defaultDisk, Files: defaultFiles, Log: defaultLog,
	})
	or(&t.Network.Mode, "none")
	or(&t.MaxAge, text(defaultMaxAge))
	t.Timeouts.fill(Timeouts{Queue: text(defaultQueueTimeout), Startup: text(defaultStartup), Run: text(defaultRun), Idle: "0s"})
}

// fill takes from d what r leaves out.
func (r *Resources) fill(d Resources) {
	or(&r.CPUs, d.CPUs)
	or(&r.Memory, d.Memory)
	or(&r.Pids, d.Pids)
	or(&r.Disk, d.Disk)
	or(&r.Files, d.Files)
	or(&r.Log, d.Log)
}

// fill takes from d what t leaves out.
func (t *Timeouts) fill(d Timeouts) {
	or(&t.Queue, d.Queue)
	or(&t.Startup, d.Startup)
	or(&t.Run, d.Run)
	or(&t.Idle, d.Idle)
}

// or sets what has its zero value.
func or[T comparable](p *T, otherwise T) {
	var zero T
	if *p == zero {
		*p = otherwise
	}
}

// text writes a duration as short as it can be read: 2h, 1m30s.
func text(d time.Duration) string {
	s := d.String()
	if len(s) > 2 && s[len(s)-2:] == "0s" && s[len(s)-3] == 'm' {
		s = s[:len(s)-2]
	}
	if len(s) > 2 && s[len(s)-2:] == "0m" && s[len(s)-3] == 'h' {
		s = s[:len(s)-2]
	}
	return s
}
