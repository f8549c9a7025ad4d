package v1alpha1

import (
	"net"
	"time"
)

// The modes of a fleet.
const (
	ModeRun    = "run"
	ModeScale  = "scale"
	ModeShadow = "shadow"
)

// What is assumed of a fleet that others run.
const (
	defaultBoot             = 45 * time.Second
	defaultSlots            = 8
	defaultStartupOfWorkers = 5 * time.Second
)

// Follows tells whether others take the tasks from the queue.
func (s *FleetSpec) Follows() bool { return s.Mode == ModeScale || s.Mode == ModeShadow }

// signals are the types of queue that can only be read.
var signals = map[string]bool{"prometheus": true, "http": true, "temporal": true}

func (s *FleetSpec) validateMode(ps *problems) {
	if s.KEDA != nil {
		s.KEDA.validate(ps, "spec.keda")
	}
	ps.oneOf("spec.mode", s.Mode, ModeRun, ModeScale, ModeShadow)
	p := s.Nodes.Provider
	ps.oneOf("spec.nodes.provider", p, ProviderHost, ProviderKubernetes, ProviderExternal)
	ps.duration("spec.nodes.boot", s.Nodes.Boot, time.Second, time.Hour, "")
	ps.whole("spec.nodes.max", s.Nodes.Max, 1, 100_000)
	ps.duration("spec.workers.startup", s.Workers.Startup, time.Millisecond, time.Hour, "")
	s.validateTargets(ps)
	if s.Follows() {
		if p == ProviderHost || p == ProviderKubernetes {
			ps.addf("spec.nodes.provider", "external", "is %s, and with mode: %s nothing runs here", p, s.Mode)
		}
		if q := s.Queue.Type; q == "" || q == "embedded" {
			ps.addf("spec.queue.type", "an outside queue, which others work off", "is embedded, whose tasks only Muster can run; mode is %s", s.Mode)
		}
		if a := s.Workers.Actual; a != nil {
			a.validate(ps, "spec.workers.actual")
		}
		return
	}
	if p == ProviderExternal {
		ps.addf("spec.nodes.provider", "host, kubernetes, or mode: scale", "is external, where Muster cannot start sandboxes")
	}
	if signals[s.Queue.Type] {
		ps.addf("spec.queue.type", "mode: scale or shadow, or a queue that tasks can be taken from", "is %s, which can only be read", s.Queue.Type)
	}
	for field, set := range map[string]bool{
		"spec.workers.startup": s.Workers.Startup != "", "spec.workers.actual": s.Workers.Actual != nil,
	} {
		if set {
			ps.addf(field, "mode: scale or shadow, or no such field", "has no meaning with mode: run")
		}
	}
	if p == ProviderKubernetes {
		return
	}
	for field, set := range map[string]bool{"spec.nodes.boot": s.Nodes.Boot != "", "spec.nodes.max": s.Nodes.Max != 0} {
		if set {
			ps.addf(field, "provider: kubernetes, mode: scale or shadow, or no such field", "has no meaning with provider: host")
		}
	}
}

func (k *KEDA) validate(ps *problems, field string) {
	if _, port, err := net.SplitHostPort(k.Listen); err != nil || port == "" {
		ps.addf(sub(field, "listen"), "HOST:PORT or :PORT, such as :7434", "%q is no address", clip(k.Listen))
	}
	ps.tls(field, &QueueTLS{Cert: k.Cert, Key: k.Key, CA: k.ClientCA})
	if k.ClientCA != "" && k.Cert == "" {
		ps.addf(sub(field, "cert"), "a certificate and its key", "is missing, and clients' certificates are asked for over TLS only")
	}
}

func (a *Actual) validate(ps *problems, field string) {
	if (a.Prometheus == nil) == (a.HTTP == nil) {
		ps.addf(field, "exactly one of prometheus and http", "does not say where to read")
		return
	}
	if a.Prometheus != nil {
		a.Prometheus.validate(ps, sub(field, "prometheus"))
	}
	if a.HTTP != nil {
		a.HTTP.validate(ps, sub(field, "http"))
	}
}
