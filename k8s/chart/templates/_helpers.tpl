{{/*
The name of all objects. Not one that begins with canary-mw: Kubernetes sets variables named after each Service, and an app
with the middleware would read CANARY_MW_PORT as a setting.
*/}}
{{- define "canary.name" -}}
{{- if or (contains "canary-mw" .Release.Name) (contains "canary-proxy" .Release.Name) -}}
{{- .Release.Name | replace "canary-mw" "canary-proxy" | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-canary-proxy" (trunc 50 .Release.Name) }}
{{- end }}
{{- end }}

{{- define "canary.selector" -}}
app.kubernetes.io/name: canary-mw
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: proxy
{{- end }}

{{- define "canary.labels" -}}
{{ include "canary.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The address of the rules in the API: k8s://NAMESPACES?kinds=...&selector=... */}}
{{- define "canary.address" -}}
{{- with .Values.source.kubernetes -}}
{{- $options := list -}}
{{- if .kinds }}{{ $options = append $options (printf "kinds=%s" (join "," .kinds)) }}{{ end -}}
{{- if .selector }}{{ $options = append $options (printf "selector=%s" (.selector | urlquery | replace "+" "%20")) }}{{ end -}}
k8s://{{ join "," .namespaces }}{{ if $options }}?{{ join "&" $options }}{{ end }}
{{- end }}
{{- end }}

{{/* Whether rules are read from files: always, unless they come from the API alone. */}}
{{- define "canary.files" -}}
{{- if or .Values.rules (not .Values.source.kubernetes.enabled) }}true{{ end }}
{{- end }}

{{- define "canary.sources" -}}
{{- $sources := list -}}
{{- if include "canary.files" . }}{{ $sources = append $sources "/etc/canary" }}{{ end -}}
{{- if .Values.source.kubernetes.enabled }}{{ $sources = append $sources (include "canary.address" .) }}{{ end -}}
{{- join ":" $sources }}
{{- end }}

{{/* Whether pods ask the API for anything. */}}
{{- define "canary.asks" -}}
{{- if or .Values.source.kubernetes.enabled .Values.endpoints.enabled }}true{{ end }}
{{- end }}

{{/* What is asked for: list and watch, for each kind that is read. Endpoints need the ports of their Services, too. */}}
{{- define "canary.rights" -}}
{{- $groups := dict "services" "" "ingresses" "networking.k8s.io" "mappings" "getambassador.io" "endpointslices" "discovery.k8s.io" -}}
{{- $kinds := list -}}
{{- if .Values.source.kubernetes.enabled }}
{{- $kinds = .Values.source.kubernetes.kinds | default (list "services" "ingresses" "mappings") -}}
{{- end }}
{{- if .Values.endpoints.enabled }}{{ $kinds = concat $kinds (list "services" "endpointslices") }}{{ end -}}
{{- range $kind := list "services" "ingresses" "mappings" "endpointslices" }}
{{- if has $kind $kinds }}
- apiGroups: [{{ get $groups $kind | quote }}]
  resources: [{{ $kind }}]
  verbs: [list, watch]
{{- end }}
{{- end }}
{{- if and .Values.events.enabled .Values.source.kubernetes.enabled }}
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
{{- end }}
