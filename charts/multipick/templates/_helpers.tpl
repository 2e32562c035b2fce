{{/* At most 40 letters, so that the longest name made from it still fits a label; a cut one keeps a hash of the whole. */}}
{{- define "multipick.name" -}}
{{- $name := ternary .Release.Name (printf "%s-multipick" .Release.Name) (contains "multipick" .Release.Name) -}}
{{- if gt (len $name) 40 }}{{ printf "%s-%s" ($name | trunc 31 | trimSuffix "-") ($name | sha256sum | trunc 8) }}{{ else }}{{ $name }}{{ end }}
{{- end }}

{{/* Labels of everything; call with (dict "root" $ "component" "operator"). */}}
{{- define "multipick.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "multipick.selector" . }}
{{- end }}

{{- define "multipick.selector" -}}
app.kubernetes.io/name: multipick
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Metadata of a pod template: the selector's labels, which no other may replace, and those of `values`; call with
(dict "root" $ "component" "operator" "values" values "annotations" (dict ...)). */}}
{{- define "multipick.podMeta" -}}
labels:
  {{- toYaml (merge (include "multipick.selector" . | fromYaml) (.values.podLabels | default dict)) | nindent 2 }}
{{- with merge (.annotations | default dict) (.values.podAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "multipick.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}
{{- else }}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Pod Security Standard "restricted"; call with (dict "root" $ "user" id). OpenShift gives out ids by itself. */}}
{{- define "multipick.podSecurity" -}}
runAsNonRoot: true
{{- if .root.Values.security.fixedIds }}
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "multipick.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "multipick.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "multipick.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "multipick.stateUrl" -}}
{{- if .Values.state.url }}{{ .Values.state.url }}
{{- else if .Values.valkey.enabled }}redis://{{ include "multipick.name" . }}-valkey.{{ .Release.Namespace }}.svc:6379
{{- end }}
{{- end }}

{{/* Name of the Secret with the state's password; empty where there is none. */}}
{{- define "multipick.stateSecret" -}}
{{- if .Values.state.url }}{{ .Values.state.passwordSecret.name }}
{{- else if .Values.valkey.enabled }}{{ .Values.valkey.existingSecret | default (printf "%s-valkey" (include "multipick.name" .)) }}
{{- end }}
{{- end }}

{{/* Bytes of a quantity, of Valkey's or of Kubernetes' writing. */}}
{{- define "multipick.bytes" -}}
{{- $units := dict "" 1 "b" 1 "kb" 1024 "mb" 1048576 "gb" 1073741824 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $text := toString . }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- if not (hasKey $units $unit) }}{{ fail (printf "no amount of memory: %s" $text) }}{{ end }}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit) | int64 }}
{{- end }}

{{/* Valkey must come to its own bound before it comes to the container's; what it needs beside its data is not counted. */}}
{{- define "multipick.checkMemory" -}}
{{- $limit := dig "limits" "memory" "" .resources | default "" }}
{{- if $limit }}
{{- $most := divf (mulf (include "multipick.bytes" $limit | float64) 9) 10 | int64 }}
{{- $own := include "multipick.bytes" .maxmemory | int64 }}
{{- if or (gt $own $most) (eq $own 0) }}
{{- fail (printf "valkey.maxmemory (%s) must be above 0 and at most nine tenths of valkey.resources.limits.memory (%s)" .maxmemory (toString $limit)) }}
{{- end }}
{{- end }}
{{- end }}
