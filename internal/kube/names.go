package kube

// Labels and annotations of the objects that Muster makes. Each carries all of
// the first three labels, so that two fleets in one namespace never touch each
// other's.
const (
	// LabelOwner is the standard label of who writes an object; its value is
	// Owner.
	LabelOwner = "app.kubernetes.io/managed-by"
	// LabelFleet names the fleet.
	LabelFleet = "muster.dev/fleet"
	// LabelRole says what the object is for; see Role….
	LabelRole = "muster.dev/role"
	// LabelSandbox is the id of the sandbox that a pod is.
	LabelSandbox = "muster.dev/sandbox"
	// LabelTemplate names the template of a sandbox; the pool and the revision
	// are annotations, since they may hold what a label may not.
	LabelTemplate = "muster.dev/template"
	// LabelState is ready, claimed or draining.
	LabelState = "muster.dev/state"

	// AnnotationPool and AnnotationRevision are a sandbox's pool and revision.
	AnnotationPool     = "muster.dev/pool"
	AnnotationRevision = "muster.dev/revision"
	// AnnotationTask is the task of a claimed sandbox.
	AnnotationTask = "muster.dev/task"

	// AnnotationSafeToEvict is read by Cluster Autoscaler: "false" keeps the
	// node of the pod.
	AnnotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	// AnnotationDoNotDisrupt is read by Karpenter: "true" keeps the node of the
	// pod.
	AnnotationDoNotDisrupt = "karpenter.sh/do-not-disrupt"
	// AnnotationDeletionCost is read by the controller of ReplicaSets: of a set
	// that shrinks, the pods with the lowest cost go first.
	AnnotationDeletionCost = "controller.kubernetes.io/pod-deletion-cost"

	// TaintDedicated is the key of the taint of nodes for agents; its value is
	// the fleet's name, or "agents" for all fleets of the cluster.
	TaintDedicated = "muster.dev/dedicated"
)

// Owner is the value of LabelOwner.
const Owner = "muster"

// The values of LabelRole.
const (
	RoleSandbox  = "sandbox"  // a pod, or a claim, that carries one task
	RoleSeat     = "seat"     // a pod that brings or holds a node
	RoleControl  = "control"  // the control plane itself
	RoleConsumer = "consumer" // a process that drives sandboxes for the control plane
)

// Group is the API group of Muster's own resources.
const Group = "muster.dev"
