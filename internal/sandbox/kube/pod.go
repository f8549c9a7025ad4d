package kube

import (
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/kube"
	"muster.dev/muster/internal/sandbox/gateway"
)

const (
	// annotationAttempt tells one attempt to make a pod from all others.
	annotationAttempt = "muster.dev/attempt"
	// labelNetwork is the network mode, which policies select by.
	labelNetwork = "muster.dev/network"

	containerAgent  = "agent"
	containerRunner = "runner" // the init container

	agentUID = 1000

	runDir      = "/run/muster"
	runnerPath  = runDir + "/muster-runner"
	tokenDir    = "/var/run/muster-identity"
	workspace   = "/workspace"
	home        = "/home/agent"
	stateReady  = "ready"
	stateTaken  = "claimed"
	runBytes    = 64 << 20 // runner and token, in memory
	tokenExpiry = 3600     // seconds; the API server gives no less than 600
	// graceSeconds is how long a pod that others delete may go on.
	graceSeconds = 30
)

// podOf is the pod of a sandbox: pod security level "restricted", and more.
func (s *Sandboxes) podOf(b *box) *corev1.Pod {
	p, spec := s.o.Pods, b.spec
	labels := maps.Clone(p.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, s.o.selector())
	labels[kube.LabelSandbox] = string(b.id)
	labels[kube.LabelState] = stateReady
	labels[labelNetwork] = string(spec.Network.Mode)
	if len(validation.IsValidLabelValue(spec.Template)) == 0 {
		labels[kube.LabelTemplate] = spec.Template
	}
	notes := maps.Clone(p.Annotations)
	if notes == nil {
		notes = map[string]string{}
	}
	maps.Copy(notes, map[string]string{
		kube.AnnotationPool: string(spec.Pool), kube.AnnotationRevision: spec.Revision,
		kube.AnnotationSafeToEvict: "true", annotationAttempt: b.attempt,
	})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: string(b.id), Namespace: s.o.Namespace, Labels: labels, Annotations: notes},
		Spec: corev1.PodSpec{
			InitContainers:                []corev1.Container{s.installer(spec)},
			Containers:                    []corev1.Container{s.agent(spec)},
			Volumes:                       volumes(spec),
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(graceSeconds)),
			ServiceAccountName:            p.ServiceAccount,
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			SecurityContext:               podSecurity(),
			NodeSelector:                  p.NodeSelector,
			Tolerations:                   s.tolerations(),
			Affinity:                      toward(spec.Node),
			PriorityClassName:             p.PriorityClass,
			SchedulerName:                 p.Scheduler,
		},
	}
	s.optional(&pod.Spec, b)
	return pod
}

// optional is what is only there where it was asked for.
func (s *Sandboxes) optional(spec *corev1.PodSpec, b *box) {
	p := s.o.Pods
	if b.class != "" {
		spec.RuntimeClassName = &b.class
	}
	if p.UserNamespaces {
		spec.HostUsers = new(false)
	}
	for _, name := range p.ImagePullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	if s.o.Door.IP != "" {
		spec.HostAliases = []corev1.HostAlias{{IP: s.o.Door.IP, Hostnames: []string{hostOf(s.o.Door.URL)}}}
	}
	if b.spec.Network.Mode != fleet.NetworkOpen {
		// No name service can be reached: a look-up fails at once, instead of
		// after the resolver's patience.
		spec.DNSPolicy = corev1.DNSNone
		spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"127.0.0.1"}}
	}
}

func podSecurity() *corev1.PodSecurityContext {
	return &corev1.PodSecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(agentUID)), RunAsGroup: new(int64(agentUID)), FSGroup: new(int64(agentUID)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func containerSecurity() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// installer copies the runner and the pod's token into memory. It is the only
// one that sees the token's volume.
func (s *Sandboxes) installer(spec fleet.SandboxSpec) corev1.Container {
	limits := corev1.ResourceList{ // less than the agent's: they are not added up
		corev1.ResourceCPU:    milli(min(spec.Resources.MilliCPU, 250)),
		corev1.ResourceMemory: sizeOf(min(spec.Resources.MemoryBytes, 2*runBytes)),
	}
	return corev1.Container{
		Name: containerRunner, Image: s.o.RunnerImage, Command: []string{"/muster-runner", "install", runDir},
		Env:             []corev1.EnvVar{{Name: "MUSTER_TOKEN_FILE", Value: tokenDir + "/token"}},
		Resources:       corev1.ResourceRequirements{Requests: limits, Limits: limits},
		SecurityContext: containerSecurity(),
		VolumeMounts:    []corev1.VolumeMount{{Name: "run", MountPath: runDir}, {Name: "identity", MountPath: tokenDir, ReadOnly: true}},
	}
}

// agent runs the runner, and what it starts. Its environment is the runner's
// own: the template's comes over the link.
func (s *Sandboxes) agent(spec fleet.SandboxSpec) corev1.Container {
	limits := corev1.ResourceList{
		corev1.ResourceCPU:              milli(spec.Resources.MilliCPU),
		corev1.ResourceMemory:           sizeOf(spec.Resources.MemoryBytes),
		corev1.ResourceEphemeralStorage: sizeOf(spec.Resources.DiskBytes),
	}
	uid := strconv.Itoa(agentUID)
	env := []corev1.EnvVar{
		{Name: "MUSTER_GATEWAY", Value: s.o.Door.URL}, {Name: "MUSTER_CA", Value: string(s.o.Door.CA)},
		{Name: "MUSTER_IDENTITY", Value: runDir + "/token"}, {Name: "MUSTER_SAME_UID", Value: "1"},
		{Name: "MUSTER_UID", Value: uid}, {Name: "MUSTER_GID", Value: uid},
		{Name: "MUSTER_HOME", Value: home}, {Name: "MUSTER_WORKSPACE", Value: workspace},
	}
	if spec.Network.Mode == fleet.NetworkProxy {
		env = append(env, corev1.EnvVar{Name: "MUSTER_EGRESS", Value: "1"})
	}
	return corev1.Container{
		Name: containerAgent, Image: spec.Image, Command: []string{runnerPath}, Env: env, WorkingDir: workspace,
		Resources:       corev1.ResourceRequirements{Requests: limits, Limits: limits},
		SecurityContext: containerSecurity(),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "run", MountPath: runDir}, {Name: "workspace", MountPath: workspace},
			{Name: "home", MountPath: home}, {Name: "tmp", MountPath: "/tmp"},
		},
	}
}

// volumes are all that can be written: each may be as large as the whole disk
// of the sandbox, and the container's limit bounds them together.
func volumes(spec fleet.SandboxSpec) []corev1.Volume {
	disk := sizeOf(spec.Resources.DiskBytes)
	empty := func(name string, e corev1.EmptyDirVolumeSource) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &e}}
	}
	run := sizeOf(runBytes)
	token := corev1.ProjectedVolumeSource{
		DefaultMode: new(int32(0o440)),
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: gateway.Audience, ExpirationSeconds: new(int64(tokenExpiry)), Path: "token",
		}}},
	}
	return []corev1.Volume{
		empty("run", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &run}),
		empty("workspace", corev1.EmptyDirVolumeSource{SizeLimit: &disk}),
		empty("home", corev1.EmptyDirVolumeSource{SizeLimit: &disk}),
		empty("tmp", corev1.EmptyDirVolumeSource{SizeLimit: &disk}),
		{Name: "identity", VolumeSource: corev1.VolumeSource{Projected: &token}},
	}
}

// tolerations let pods onto nodes for agents, and off those that are lost
// sooner than the default of five minutes.
func (s *Sandboxes) tolerations() []corev1.Toleration {
	lost := int64(s.o.Pods.NodeLost.Seconds())
	ts := make([]corev1.Toleration, 0, 4+len(s.o.Pods.Tolerations))
	for _, v := range []string{s.o.Fleet, "agents"} {
		ts = append(ts, corev1.Toleration{Key: kube.TaintDedicated, Operator: corev1.TolerationOpEqual, Value: v})
	}
	for _, k := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		ts = append(ts, corev1.Toleration{Key: k, Operator: corev1.TolerationOpExists,
			Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &lost})
	}
	return append(ts, s.o.Pods.Tolerations...)
}

// toward prefers the node of the plan; the scheduler has the last word.
func toward(node fleet.NodeID) *corev1.Affinity {
	if node == "" || len(validation.IsDNS1123Subdomain(string(node))) > 0 {
		return nil
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight: 100,
			Preference: corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{string(node)}},
			}},
		}},
	}}
}

func milli(n int64) resource.Quantity  { return *resource.NewMilliQuantity(n, resource.DecimalSI) }
func sizeOf(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.BinarySI) }
