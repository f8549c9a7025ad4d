{{/* The rights of the control plane, each with who needs it. test/helm holds
them to the calls that the adapters make against a real API server. */}}
{{- define "muster.fleetRules" -}}
# operator: the fleets, how they are, and the finalizer that drains them.
- apiGroups: [muster.dev]
  resources: [fleets]
  verbs: [get, list, watch, update, patch]
- apiGroups: [muster.dev]
  resources: [fleets/status, fleets/finalizers]
  verbs: [get, update, patch]
# sandbox/kube: one pod per sandbox, labelled when it is claimed. nodes/kube:
# seats.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# sandbox/kube: closes the network of sandboxes but for the gateway.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update, patch, delete]
# operator: scaling events on the Fleet. nodes/kube: why a node does not come.
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# secret: what tasks and queues name; never listed.
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.secrets.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
{{- if .Values.rbac.capacityBuffers }}
# nodes/kube: headroom as a buffer, and the shape of what it is for.
- apiGroups: [autoscaling.x-k8s.io]
  resources: [capacitybuffers]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [podtemplates]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end }}
{{- if .Values.rbac.agentSandbox }}
# sandbox/kube: warm pools and claims of agent-sandbox.
- apiGroups: [extensions.agents.x-k8s.io]
  resources: [sandboxtemplates, sandboxwarmpools, sandboxclaims]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [extensions.agents.x-k8s.io]
  resources: [sandboxwarmpools/scale]
  verbs: [get, update, patch]
- apiGroups: [agents.x-k8s.io]
  resources: [sandboxes]
  verbs: [get, list, watch]
{{- end }}
{{- if .Values.rbac.metrics }}
# sandbox/kube: what sandboxes use.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [get, list]
{{- end }}
{{- if .Values.rbac.scaleTargets }}
# scaler: any object with /scale; who else writes it; which workers are idle.
- apiGroups: ["*"]
  resources: ["*/scale"]
  verbs: [get, update, patch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [deployments, statefulsets, replicasets]
  verbs: [get, list, watch]
{{- end }}
{{- end }}

{{- define "muster.ownRules" -}}
# operator: leader election.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
# operator: the leader's label on its own pod, which the Services select.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, patch]
{{- end }}

{{- define "muster.clusterRules" -}}
# gateway: whether a connection is the pod that it says it is.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
# sandbox/kube: which sandboxing runtimes there are. nodes/kube: the priority
# of seats.
- apiGroups: [node.k8s.io]
  resources: [runtimeclasses]
  verbs: [get, list]
- apiGroups: [scheduling.k8s.io]
  resources: [priorityclasses]
  verbs: [get, list]
{{- if .Values.rbac.nodes }}
# nodes/kube: what nodes there are, and cordons by name.
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch, patch]
# nodes/kube: what else runs on the fleets' nodes, of whatever namespace.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- end }}
{{- if .Values.rbac.karpenter }}
# nodes/kube: the replicas of a static NodePool, and why a node does not come.
- apiGroups: [karpenter.sh]
  resources: [nodepools, nodeclaims]
  verbs: [get, list, watch]
- apiGroups: [karpenter.sh]
  resources: [nodepools/scale]
  verbs: [get, update, patch]
{{- end }}
{{- end }}
