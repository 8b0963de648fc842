{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "gateway.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image's reference; call it with (list image defaultTag). */}}
{{- define "gateway.image" -}}
{{- $image := index . 0 }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) }}
{{- end }}
{{- end }}

{{/* The text of a setting: numbers without an exponent. */}}
{{- define "gateway.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}
{{- int64 . }}
{{- else }}
{{- . }}
{{- end }}
{{- end }}

{{- define "gateway.sidecar" -}}
{{- if and (eq .Values.engine "triton") (eq .Values.triton.mode "sidecar") }}true{{ end }}
{{- end }}

{{- define "gateway.external" -}}
{{- if and (eq .Values.engine "triton") (eq .Values.triton.mode "external") }}true{{ end }}
{{- end }}

{{- define "gateway.hasModels" -}}
{{- if or .Values.models.existingClaim .Values.models.fetch.source }}true{{ end }}
{{- end }}

{{- define "gateway.hasRedis" -}}
{{- if or .Values.sessions.redis.url .Values.sessions.redis.existingSecret }}true{{ end }}
{{- end }}

{{- define "gateway.hasKeys" -}}
{{- if or .Values.keys.entries .Values.keys.existingSecret }}true{{ end }}
{{- end }}

{{- define "gateway.hasPostgresql" -}}
{{- if and .Values.jobs.enabled (eq .Values.jobs.store "postgresql") }}true{{ end }}
{{- end }}

{{- define "gateway.several" -}}
{{- if or (ne .Values.autoscaling.kind "none") (gt (int .Values.replicas) 1) }}true{{ end }}
{{- end }}

{{/* Seconds from the end of a pod's service to its kill. */}}
{{- define "gateway.graceSeconds" -}}
{{- $stop := .Values.shutdown }}
{{- $triton := ternary (int .Values.triton.exitSeconds) 0 (eq (include "gateway.sidecar" .) "true") }}
{{- add (int $stop.preStopSeconds) (int $stop.drainSeconds) (int $stop.timeoutSeconds) $triton 10 }}
{{- end }}

{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* AWS's variables, for buckets. */}}
{{- define "gateway.objectStoreEnv" -}}
{{- with .Values.objectStore }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .region }}
- {name: AWS_REGION, value: {{ .region | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ .region | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Values that don't go together. */}}
{{- define "gateway.check" -}}
{{- $sidecar := include "gateway.sidecar" . }}
{{- if and .Values.models.existingClaim .Values.models.fetch.source }}
{{- fail "models: set existingClaim or fetch.source, and leave the other empty" }}
{{- end }}
{{- if and (not (include "gateway.external" .)) (not (include "gateway.hasModels" .)) }}
{{- fail "models: set existingClaim or fetch.source" }}
{{- end }}
{{- if and (include "gateway.external" .) (not .Values.triton.urls) }}
{{- fail "triton.urls: name the external Tritons" }}
{{- end }}
{{- if and (not (include "gateway.external" .)) .Values.triton.urls }}
{{- fail "triton.urls: only with engine triton and triton.mode external" }}
{{- end }}
{{- if and $sidecar (hasKey (default dict .Values.gateway.resources.limits) .Values.triton.gpuResource) }}
{{- fail (printf "gateway.resources: %s belongs to Triton, set triton.gpus" .Values.triton.gpuResource) }}
{{- end }}
{{- if and .Values.sessions.redis.url .Values.sessions.redis.existingSecret }}
{{- fail "sessions.redis: set url or existingSecret, and leave the other empty" }}
{{- end }}
{{- if and .Values.keys.entries .Values.keys.existingSecret }}
{{- fail "keys: set entries or existingSecret, and leave the other empty" }}
{{- end }}
{{- if include "gateway.several" . }}
{{- if and (not (include "gateway.hasRedis" .)) (ne .Values.service.sessionAffinity "ClientIP") }}
{{- fail "several pods: set sessions.redis, or service.sessionAffinity: ClientIP, or a session's frames reach different pods" }}
{{- end }}
{{- if and .Values.jobs.enabled (eq .Values.jobs.store "sqlite") }}
{{- fail "several pods: set jobs.store: postgresql, or jobs.enabled: false; a job of SQLite is known to one pod only" }}
{{- end }}
{{- end }}
{{- if include "gateway.hasPostgresql" . }}
{{- if not .Values.jobs.postgresql.existingSecret }}
{{- fail "jobs.postgresql.existingSecret: name the Secret with PostgreSQL's URL" }}
{{- end }}
{{- if not .Values.jobs.artifacts }}
{{- fail "jobs.artifacts: with PostgreSQL, artefacts go to a bucket that all pods share, s3://bucket/prefix" }}
{{- end }}
{{- end }}
{{- if .Values.state.existingClaim }}
{{- if include "gateway.several" . }}
{{- fail "state.existingClaim: one pod only; several pods keep jobs in jobs.store: postgresql and a bucket" }}
{{- end }}
{{- if ne (toString .Values.strategy.maxSurge) "0" }}
{{- fail "state.existingClaim: set strategy.maxSurge: 0 and maxUnavailable: 1, since two pods must not have the claim at once" }}
{{- end }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling: minReplicas is greater than maxReplicas" }}
{{- end }}
{{- if and (eq (toString .Values.strategy.maxSurge) "0") (eq (toString .Values.strategy.maxUnavailable) "0") }}
{{- fail "strategy: maxSurge and maxUnavailable can't both be 0" }}
{{- end }}
{{- end }}

{{- define "gateway.smokeSelector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: smoke
{{- end }}
