{{/* The environment of the gateway. Settings of the image stay as they are: its folders, and that it listens everywhere. */}}
{{- define "gateway.env" -}}
{{- $set := dict }}
{{- $_ := set $set "ENGINE" .Values.engine }}
{{- $_ := set $set "PORT" "8080" }}
{{- $_ := set $set "OPERATE_PORT" .Values.gateway.operatePort }}
{{- $_ := set $set "DRAIN_S" .Values.shutdown.drainSeconds }}
{{- $_ := set $set "SHUTDOWN_TIMEOUT_S" .Values.shutdown.timeoutSeconds }}
{{- $_ := set $set "LOG_FORMAT" "json" }}
{{- /* A pod whose volume grows over its size is evicted. */}}
{{- $mebibyte := 1048576 }}
{{- $_ := set $set "VIDEOS_WAITING_BYTES" (mul (int64 .Values.state.size) 360 $mebibyte) }}
{{- $_ := set $set "VIDEOS_KEEP_BYTES" (mul (int64 .Values.state.size) 360 $mebibyte) }}
{{- $_ := set $set "GRAPH_CACHE" "/var/lib/gateway/graphs" }}
{{- $_ := set $set "GRAPH_CACHE_BYTES" (mul (int64 .Values.state.size) 100 $mebibyte) }}
{{- if include "gateway.sidecar" . }}
{{- $_ := set $set "TRITON_URL" "127.0.0.1:8001" }}
{{- else if include "gateway.external" . }}
{{- $_ := set $set "TRITON_URL" (join "," .Values.triton.urls) }}
{{- end }}
{{- if .Values.manifest.existingConfigMap }}
{{- $_ := set $set "MANIFEST" "/etc/gateway/manifest/manifest.json" }}
{{- end }}
{{- if .Values.catalogue.existingConfigMap }}
{{- $_ := set $set "CATALOGUE" "/etc/gateway/catalogue" }}
{{- end }}
{{- if include "gateway.hasKeys" . }}
{{- $_ := set $set "API_KEYS_FILE" (printf "/etc/gateway/keys/%s" .Values.keys.key) }}
{{- end }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $set "TLS_CERT" "/etc/gateway/tls/tls.crt" }}
{{- $_ := set $set "TLS_KEY" "/etc/gateway/tls/tls.key" }}
{{- end }}
{{- if .Values.sessions.redis.url }}
{{- $_ := set $set "SESSION_STORE" .Values.sessions.redis.url }}
{{- end }}
{{- if not .Values.jobs.enabled }}
{{- $_ := set $set "VIDEOS_FOLDER" "" }}
{{- end }}
{{- if and .Values.jobs.enabled .Values.jobs.artifacts }}
{{- $_ := set $set "JOB_ARTIFACTS" .Values.jobs.artifacts }}
{{- end }}
{{- if .Values.webhooks.hosts }}
{{- $_ := set $set "WEBHOOK_HOSTS" (join "," .Values.webhooks.hosts) }}
{{- end }}
{{- $_ := mergeOverwrite $set .Values.settings }}
{{- range $name, $value := $set }}
- {name: GATEWAY_{{ $name }}, value: {{ include "gateway.text" $value | quote }}}
{{- end }}
{{- with .Values.sessions.redis }}
{{- if .existingSecret }}
- name: GATEWAY_SESSION_STORE
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- if include "gateway.hasPostgresql" . }}
- name: GATEWAY_JOB_STORE
  valueFrom: {secretKeyRef: {name: {{ .Values.jobs.postgresql.existingSecret }}, key: {{ .Values.jobs.postgresql.key }}}}
{{- end }}
{{- with .Values.webhooks }}
{{- if .existingSecret }}
- name: GATEWAY_WEBHOOK_SECRET
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- include "gateway.objectStoreEnv" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
