package v1alpha1

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"

	"muster.dev/muster/internal/fleet"
)

// The providers of nodes.
const (
	ProviderHost       = "host"
	ProviderKubernetes = "kubernetes"
	ProviderExternal   = "external"
)

// Ways in which nodes are brought ahead of need.
const (
	HeadroomAuto        = "auto"
	HeadroomBuffer      = "buffer"
	HeadroomPlaceholder = "placeholder"
	HeadroomKarpenter   = "karpenter"
	HeadroomNone        = "none"
)

// Ways in which warm sandboxes are kept.
const (
	WarmAuto         = "auto"
	WarmPods         = "pods"
	WarmAgentSandbox = "agent-sandbox"
)

// KubernetesNodes says where in a cluster sandboxes run, and how.
type KubernetesNodes struct {
	// NodeSelector are the labels of the nodes for agents. Without any, agents run
	// on whatever node there is, and no node is brought or returned.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Shared says that other things may run on those nodes, too. Otherwise
	// whatever does is an event and an alert.
	Shared bool `json:"shared,omitempty"`
	// Tolerations are for taints beside muster.dev/dedicated, which sandboxes
	// tolerate anyway.
	Tolerations []Toleration `json:"tolerations,omitempty" maxItems:"64"`
	// Headroom is how nodes are brought ahead of need: auto (default: buffer where
	// the cluster serves CapacityBuffer, else placeholder), buffer, placeholder
	// (pods of negative priority), karpenter (a static NodePool), or none: the
	// nodes there are.
	Headroom string `json:"headroom,omitempty" enum:"auto,buffer,placeholder,karpenter,none"`
	// NodePool is the static Karpenter NodePool whose replicas are set, with
	// headroom: karpenter.
	NodePool string `json:"nodePool,omitempty" kube:"object"`
	// PriorityClass is that of sandboxes, PlaceholderPriorityClass of the pods that
	// bring nodes, which must be a negative one above -10, since Cluster Autoscaler
	// brings no node for less. Defaults: the cluster's, and muster-seat.
	PriorityClass            string `json:"priorityClass,omitempty" kube:"object"`
	PlaceholderPriorityClass string `json:"placeholderPriorityClass,omitempty" kube:"object"`
	// RuntimeClasses are those of template runtimes.
	RuntimeClasses RuntimeClasses `json:"runtimeClasses,omitempty"`
	// ImagePullSecrets are Secrets in the fleet's namespace, for private images.
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty" maxItems:"64"`
	// ServiceAccount is that of sandboxes, whose token only proves to the control
	// plane which pod dials; it needs no right. Default: default.
	ServiceAccount string `json:"serviceAccount,omitempty" kube:"object"`
	// Warm is how warm sandboxes are kept: auto (default: agent-sandbox where its
	// resources are served, else pods; with spec.consumers always pods), pods, or
	// agent-sandbox.
	Warm string `json:"warm,omitempty" enum:"auto,pods,agent-sandbox"`
	// SlotSize is what a new node is thought to have for each sandbox, with
	// spec.nodes.slots of them; default: the largest template's.
	SlotSize SlotSize `json:"slotSize,omitempty"`
}

// Toleration is one of a pod, as in Kubernetes.
type Toleration struct {
	Key      string `json:"key,omitempty"`
	Operator string `json:"operator,omitempty" enum:"Exists,Equal"` // Equal (default), Exists
	Value    string `json:"value,omitempty"`
	Effect   string `json:"effect,omitempty" enum:"NoSchedule,PreferNoSchedule,NoExecute"` // default: all
}

// RuntimeClasses names the RuntimeClass of each runtime.
type RuntimeClasses struct {
	GVisor string `json:"gvisor,omitempty" kube:"object"` // default: the class whose handler is runsc
	Kata   string `json:"kata,omitempty" kube:"object"`   // default: the class whose handler is kata
}

// SlotSize is the part of a node that one sandbox takes.
type SlotSize struct {
	CPUs   Quantity `json:"cpus,omitempty"`
	Memory Quantity `json:"memory,omitempty"`
}

// Target is an object of the fleet's own namespace whose replicas follow the
// plan, with mode: scale in a cluster. See docs/kubernetes-scaler.md.
type Target struct {
	APIVersion string `json:"apiVersion"` // such as apps/v1
	Kind       string `json:"kind"`       // one with /scale, such as Deployment
	Name       string `json:"name" kube:"object"`
	// Drives says what of the plan its replicas are: workers (default) or nodes.
	Drives string `json:"drives,omitempty" enum:"workers,nodes"`
	// Template is the one whose workers these are; default: all.
	Template string `json:"template,omitempty"`
	// PerReplica is how many workers (or nodes) one replica stands for. Default 1.
	PerReplica int `json:"perReplica,omitempty" minimum:"1" maximum:"10000"`
	// Min and Max bound the replicas; Max 0: no bound but the plan's.
	Min int `json:"min,omitempty" minimum:"0" maximum:"100000"`
	Max int `json:"max,omitempty" minimum:"0" maximum:"100000"`
	// Reports says what is made of workers that do not tell whether they are busy:
	// optional (default: as many go as the plan says, those that report busy are
	// spared), required (who does not report is busy), off (nobody is asked; the
	// default for nodes).
	Reports string `json:"reports,omitempty" enum:"optional,required,off"`
}

func (k *KubernetesNodes) fill() {
	or(&k.Headroom, HeadroomAuto)
	or(&k.Warm, WarmAuto)
	or(&k.PlaceholderPriorityClass, "muster-seat")
	or(&k.ServiceAccount, "default")
	for i := range k.Tolerations {
		or(&k.Tolerations[i].Operator, "Equal")
	}
}

func (t *Target) fill() {
	or(&t.Drives, "workers")
	or(&t.PerReplica, 1)
	if t.Drives == "nodes" {
		or(&t.Reports, "off")
	}
	or(&t.Reports, "optional")
}

// validatePlace checks a template against where it is to run.
func (t *Template) validatePlace(ps *problems, field, provider string) {
	if provider != ProviderKubernetes {
		switch fleet.Runtime(t.Runtime) {
		case fleet.RuntimeKubernetes, fleet.RuntimeKata:
			where := provider
			or(&where, ProviderHost)
			ps.addf(sub(field, "runtime"), "auto, gvisor, runc or crun", "%s needs nodes.provider: kubernetes, and that is %s", t.Runtime, clip(where))
		default:
			ps.oneOf(sub(field, "runtime"), t.Runtime, "auto", "gvisor", "runc", "crun")
		}
		return
	}
	ps.oneOf(sub(field, "runtime"), t.Runtime, "auto", "kubernetes", "gvisor", "kata")
	if t.Image == "" || t.Image == fleet.ImageHost || strings.HasPrefix(t.Image, "/") {
		image := t.Image
		or(&image, "left out, that is host")
		ps.addf(sub(field, "image"), "a reference such as debian:12", "is %s, and the nodes of a cluster have only images of a registry", clip(image))
	}
	if len(t.Mounts) > 0 {
		ps.addf(sub(field, "mounts"), "an image that holds the files", "show paths of the host, which agents in a cluster never see")
	}
}

func (s *FleetSpec) validateKubernetes(ps *problems) {
	n := &s.Nodes
	const field = "spec.nodes.kubernetes"
	ps.whole("spec.nodes.min", n.Min, 0, 100_000)
	if n.Max > 0 && n.Min > n.Max {
		ps.addf("spec.nodes.min", "at most max", "%d is more than max, %d", n.Min, n.Max)
	}
	if n.Provider != ProviderKubernetes {
		if n.Kubernetes != nil {
			ps.addf(field, "provider: kubernetes, or no such block", "has no meaning with another provider")
		}
		if n.Min != 0 {
			ps.addf("spec.nodes.min", "provider: kubernetes, or no such field", "has no meaning with another provider")
		}
		return
	}
	for name, set := range map[string]bool{
		"reserveCPUs": n.ReserveCPUs != "", "reserveMemory": n.ReserveMemory != "",
		"overcommitCPU": n.OvercommitCPU != 0, "overcommitMemory": n.OvercommitMemory != 0,
	} {
		if set {
			ps.addf("spec.nodes."+name, "provider: host, or no such field", "has no meaning in a cluster, where limits are requests")
		}
	}
	if n.Kubernetes != nil {
		n.Kubernetes.validate(ps, field)
	}
}

func (k *KubernetesNodes) validate(ps *problems, field string) {
	ps.labels(sub(field, "nodeSelector"), k.NodeSelector)
	ps.oneOf(sub(field, "headroom"), k.Headroom, HeadroomAuto, HeadroomBuffer, HeadroomPlaceholder, HeadroomKarpenter, HeadroomNone)
	ps.oneOf(sub(field, "warm"), k.Warm, WarmAuto, WarmPods, WarmAgentSandbox)
	switch {
	case k.Headroom == HeadroomKarpenter && k.NodePool == "":
		ps.addf(sub(field, "nodePool"), "the name of a static NodePool, whose replicas may be set", "is missing, and headroom is karpenter")
	case k.Headroom != HeadroomKarpenter && k.NodePool != "":
		ps.addf(sub(field, "nodePool"), "headroom: karpenter, or no such field", "has no meaning with another headroom")
	}
	needs := k.Headroom == HeadroomBuffer || k.Headroom == HeadroomPlaceholder || k.Headroom == HeadroomKarpenter
	if needs && len(k.NodeSelector) == 0 {
		ps.addf(sub(field, "nodeSelector"), "labels that only the nodes for agents have", "is missing, and headroom: %s brings nodes", k.Headroom)
	}
	for _, o := range []struct{ name, value string }{
		{"nodePool", k.NodePool}, {"priorityClass", k.PriorityClass}, {"placeholderPriorityClass", k.PlaceholderPriorityClass},
		{"runtimeClasses.gvisor", k.RuntimeClasses.GVisor}, {"runtimeClasses.kata", k.RuntimeClasses.Kata}, {"serviceAccount", k.ServiceAccount},
	} {
		ps.object(sub(field, o.name), o.value)
	}
	if len(k.ImagePullSecrets) > 64 {
		ps.addf(sub(field, "imagePullSecrets"), "at most 64", "has %d", len(k.ImagePullSecrets))
	}
	for i, name := range k.ImagePullSecrets {
		if name == "" {
			ps.addf(at(sub(field, "imagePullSecrets"), i), "the name of a Secret", "is empty")
		}
		ps.object(at(sub(field, "imagePullSecrets"), i), name)
	}
	if len(k.Tolerations) > 64 {
		ps.addf(sub(field, "tolerations"), "at most 64", "has %d", len(k.Tolerations))
	}
	for i, t := range k.Tolerations {
		t.validate(ps, at(sub(field, "tolerations"), i))
	}
	ps.cpus(sub(field, "slotSize.cpus"), k.SlotSize.CPUs)
	ps.size(sub(field, "slotSize.memory"), k.SlotSize.Memory, minMemory, maxBytes)
}

func (t Toleration) validate(ps *problems, field string) {
	ps.oneOf(sub(field, "operator"), t.Operator, "Equal", "Exists")
	ps.oneOf(sub(field, "effect"), t.Effect, "NoSchedule", "PreferNoSchedule", "NoExecute")
	switch {
	case t.Key == "":
		// A toleration of everything would lead agents onto every node.
		ps.addf(sub(field, "key"), "the key of a taint", "is missing: agents would tolerate every node")
	case len(content.IsLabelKey(t.Key)) > 0:
		ps.addf(sub(field, "key"), "the key of a taint", "%q cannot be one", clip(t.Key))
	}
	if t.Operator == "Exists" && t.Value != "" {
		ps.addf(sub(field, "value"), "operator: Equal, or no value", "has no meaning with operator: Exists")
	}
	if len(content.IsLabelValue(t.Value)) > 0 {
		ps.addf(sub(field, "value"), "the value of a taint", "%q cannot be one", clip(t.Value))
	}
}

// object checks the name of a Kubernetes object; empty is none.
func (ps *problems) object(field, name string) {
	if name != "" && len(content.IsDNS1123Subdomain(name)) > 0 {
		ps.addf(field, "the name of an object: lower-case letters, digits, \"-\" and \".\"", "%q cannot be one", clip(name))
	}
}

func (s *FleetSpec) validateSecrets(ps *problems) {
	if s.Secrets.Dir != "" {
		absolute(ps, "spec.secrets.dir", s.Secrets.Dir)
	}
	ps.object("spec.secrets.kubernetes", s.Secrets.Kubernetes)
}

func (s *FleetSpec) validateTargets(ps *problems) {
	if len(s.Targets) > 0 && s.Mode != ModeScale {
		ps.addf("spec.targets", "mode: scale, or no targets", "are written to in mode: scale only")
	}
	if len(s.Targets) > 64 {
		ps.addf("spec.targets", "at most 64", "has %d", len(s.Targets))
		return
	}
	seen := map[Target]int{}
	for i, t := range s.Targets {
		field := at("spec.targets", i)
		t.validate(ps, field)
		if t.Template != "" && s.template(t.Template) == nil {
			ps.addf(sub(field, "template"), list(s.templateNames()), "%q does not exist", clip(t.Template))
		}
		key := Target{APIVersion: t.APIVersion, Kind: t.Kind, Name: t.Name}
		if first, dup := seen[key]; dup {
			ps.addf(field, "one entry for each object", "drives the object of %s, too", at("spec.targets", first))
		} else {
			seen[key] = i
		}
	}
}

func (t *Target) validate(ps *problems, field string) {
	group, version, grouped := strings.Cut(t.APIVersion, "/")
	if !grouped {
		group, version = "", t.APIVersion
	}
	if version == "" || strings.Contains(version, "/") || grouped && len(content.IsDNS1123Subdomain(group)) > 0 {
		ps.addf(sub(field, "apiVersion"), "group/version, such as apps/v1", "%q is none", clip(t.APIVersion))
	}
	if t.Kind == "" {
		ps.addf(sub(field, "kind"), "a kind with /scale, such as Deployment", "is missing")
	}
	if t.Name == "" {
		ps.addf(sub(field, "name"), "the name of an object in the fleet's namespace", "is missing")
	}
	ps.object(sub(field, "name"), t.Name)
	ps.oneOf(sub(field, "drives"), t.Drives, "workers", "nodes")
	ps.oneOf(sub(field, "reports"), t.Reports, "optional", "required", "off")
	ps.whole(sub(field, "perReplica"), t.PerReplica, 1, 10_000)
	ps.whole(sub(field, "min"), t.Min, 0, 100_000)
	ps.whole(sub(field, "max"), t.Max, 0, 100_000)
	if t.Max > 0 && t.Min > t.Max {
		ps.addf(sub(field, "min"), "at most max", "%d is more than max, %d", t.Min, t.Max)
	}
	if t.Drives == "nodes" && t.Template != "" {
		ps.addf(sub(field, "template"), "drives: workers, or no template", "has no meaning with drives: nodes")
	}
}

// SlotResources is what one sandbox takes of a new node: as said, else the
// largest of the templates.
func (f *Fleet) SlotResources() (fleet.Resources, error) {
	templates, err := f.TemplateSpecs()
	if err != nil {
		return fleet.Resources{}, err
	}
	var out fleet.Resources
	for _, t := range templates {
		out.MilliCPU = max(out.MilliCPU, t.Resources.MilliCPU)
		out.MemoryBytes = max(out.MemoryBytes, t.Resources.MemoryBytes)
		out.DiskBytes = max(out.DiskBytes, t.Resources.DiskBytes)
	}
	if k := f.Spec.Nodes.Kubernetes; k != nil {
		if k.SlotSize.CPUs != "" {
			if out.MilliCPU, err = k.SlotSize.CPUs.Milli(); err != nil {
				return out, &fleet.FieldError{Field: "spec.nodes.kubernetes.slotSize.cpus", Wrong: err.Error()}
			}
		}
		if k.SlotSize.Memory != "" {
			if out.MemoryBytes, err = k.SlotSize.Memory.Bytes(); err != nil {
				return out, &fleet.FieldError{Field: "spec.nodes.kubernetes.slotSize.memory", Wrong: err.Error()}
			}
		}
	}
	return out, nil
}
