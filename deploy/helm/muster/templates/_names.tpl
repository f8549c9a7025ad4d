{{/* The name of the chart's objects. */}}
{{- define "muster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "muster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "muster.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "muster.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "muster.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "muster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "muster.selector" -}}
app.kubernetes.io/name: {{ include "muster.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Names of cluster-wide objects carry the namespace: two releases may share
a cluster. */}}
{{- define "muster.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "muster.fullname" .) -}}
{{- end }}

{{- define "muster.serviceAccount" -}}
{{- default (include "muster.fullname" .) .Values.serviceAccount.name -}}
{{- end }}

{{- define "muster.fleetsNamespace" -}}
{{- default .Release.Namespace .Values.fleets.namespace -}}
{{- end }}

{{/* Releases of one namespace elect their leaders apart. */}}
{{- define "muster.lease" -}}
{{- default (include "muster.fullname" .) .Values.lease.name -}}
{{- end }}

{{- define "muster.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{- define "muster.tokenSecret" -}}
{{- default (printf "%s-token" (include "muster.fullname" .)) .Values.api.token.existingSecret -}}
{{- end }}

{{- define "muster.gatewayAddress" -}}
{{- default (printf "%s-gateway.%s.svc:%v" (include "muster.fullname" .) .Release.Namespace .Values.gateway.port) .Values.gateway.address -}}
{{- end }}

{{/* What a schema cannot say. */}}
{{- define "muster.check" -}}
{{- if and (gt (int .Values.replicas) 1) (ne .Values.store.type "postgres") -}}
{{- fail (printf "replicas: %v control planes cannot share a SQLite file; set store.type: postgres, or replicas: 1" .Values.replicas) -}}
{{- end -}}
{{- if and (eq .Values.store.type "postgres") (not .Values.store.postgres.existingSecret) -}}
{{- fail "store.postgres.existingSecret: none is named; want the name of a Secret with the database's URL (kubectl create secret generic NAME --from-literal=url=postgres://…)" -}}
{{- end -}}
{{- if and .Values.rbac.consumers (ne .Values.store.type "postgres") -}}
{{- fail "rbac.consumers: consumers cannot share a SQLite file; set store.type: postgres, or rbac.consumers: false" -}}
{{- end -}}
{{- if and .Values.fleets.allNamespaces .Values.fleets.namespace -}}
{{- fail (printf "fleets.namespace: %q is set together with fleets.allNamespaces; want one of the two" .Values.fleets.namespace) -}}
{{- end -}}
{{- end }}
