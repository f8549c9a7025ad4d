{{/* The rights of the control plane, each with who needs it: exactly the calls
that internal/doctor/cluster lists, which test/helm compares, and proves against
a real API server. */}}
{{- define "muster.fleetRules" -}}
# operator: the fleets, their finalizer, and how they are.
- apiGroups: [muster.dev]
  resources: [fleets]
  verbs: [get, list, watch, update]
- apiGroups: [muster.dev]
  resources: [fleets/status]
  verbs: [patch]
# sandboxes: a pod each, labelled when it is claimed. nodes: seats. operator:
# what a deleted fleet leaves. scaler: which workers are idle.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# sandboxes: their network is closed but for the gateway.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, create, patch, delete]
# operator: scaling events on the Fleet. nodes: why a node does not come.
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
# operator: the values of secrets that tasks and queues name; never listed.
- apiGroups: [""]
  resources: [secrets]
  {{- with .Values.secrets.names }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
{{- if .Values.rbac.capacityBuffers }}
# nodes: headroom as a buffer, and the shape of what it is for.
- apiGroups: [autoscaling.x-k8s.io]
  resources: [capacitybuffers]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [podtemplates]
  verbs: [get, list, create, update, delete]
{{- end }}
{{- if .Values.rbac.agentSandbox }}
# sandboxes: warm pools and claims of agent-sandbox.
- apiGroups: [extensions.agents.x-k8s.io]
  resources: [sandboxtemplates, sandboxclaims]
  verbs: [list, create, delete]
- apiGroups: [extensions.agents.x-k8s.io]
  resources: [sandboxwarmpools]
  verbs: [get, list, create, patch, delete]
- apiGroups: [agents.x-k8s.io]
  resources: [sandboxes]
  verbs: [delete]
{{- end }}
{{- if .Values.rbac.metrics }}
# sandboxes: what they use.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
{{- end }}
{{- if .Values.rbac.scaleTargets }}
# scaler: any object with /scale, who else writes it, and in what order its pods
# would go.
- apiGroups: ["*"]
  resources: ["*/scale"]
  verbs: [get, update]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get]
{{- end }}
{{- end }}

{{- define "muster.ownRules" -}}
# operator: leader election, whether another control plane of this namespace runs
# the same fleets, and its events.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, update]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
# operator: the leader's label on its own pod, which the Services select.
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- if .Values.rbac.consumers }}
# operator: consumers are made after its own pod, a Deployment for each fleet that
# has them.
- apiGroups: [""]
  resources: [pods]
  verbs: [get]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, create, patch, delete]
{{- end }}
{{- end }}

{{- define "muster.clusterRules" -}}
# gateway: whether a connection is from the pod that it says it is.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
# sandboxes: which sandboxing runtimes there are.
- apiGroups: [node.k8s.io]
  resources: [runtimeclasses]
  verbs: [list]
{{- if .Values.rbac.nodes }}
# nodes: what nodes there are, and cordons by name.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch, patch]
# nodes: what else runs on the fleets' nodes, of whatever namespace.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
{{- end }}
{{- if .Values.rbac.karpenter }}
# nodes: the replicas of a static NodePool, and why a node does not come.
- apiGroups: [karpenter.sh]
  resources: [nodepools/scale]
  verbs: [get, update]
- apiGroups: [karpenter.sh]
  resources: [nodeclaims]
  verbs: [list, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- end }}
{{- end }}
