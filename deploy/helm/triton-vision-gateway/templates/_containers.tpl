{{/* Fetches the model repository before anything else starts. */}}
{{- define "gateway.fetchContainer" -}}
- name: fetch-models
  image: {{ include "gateway.image" (list .Values.image .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - models
    - fetch
    - {{ .Values.models.fetch.source | quote }}
    - --repository=/models
    - --timeout={{ int .Values.models.fetch.timeoutSeconds }}
    {{- if .Values.models.fetch.digest }}
    - --digest={{ .Values.models.fetch.digest }}
    {{- end }}
  {{- with include "gateway.objectStoreEnv" . }}
  env:
    {{- . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "gateway.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 250m, memory: 256Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* A native sidecar: it starts before the gateway, is restarted on its own, and ends after it. Its gRPC and HTTP have no
authentication, so they listen on the pod's loopback only, and the probes run inside. */}}
{{- define "gateway.tritonContainer" -}}
- name: triton
  image: {{ include "gateway.image" (list .Values.triton.image "") }}
  imagePullPolicy: {{ .Values.triton.image.pullPolicy }}
  restartPolicy: Always
  args:
    - tritonserver
    - --model-repository=/models
    - --model-control-mode=explicit
    {{- range .Values.triton.models }}
    - --load-model={{ . }}
    {{- end }}
    - --exit-on-error=false
    - --strict-readiness=false
    - --disable-auto-complete-config
    - --grpc-address=127.0.0.1
    - --grpc-port=8001
    - --http-address=127.0.0.1
    - --http-port=8000
    - --metrics-address=0.0.0.0
    - --metrics-port=8002
    - --exit-timeout-secs={{ int .Values.triton.exitSeconds }}
    {{- range .Values.triton.args }}
    - {{ . | quote }}
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
  ports:
    - {name: triton-metrics, containerPort: 8002}
  startupProbe:
    exec: {command: [curl, -fsS, --max-time, "4", "http://127.0.0.1:8000/v2/health/live"]}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: {{ div (add (int .Values.triton.startupSeconds) 4) 5 }}
  livenessProbe:
    exec: {command: [curl, -fsS, --max-time, "9", "http://127.0.0.1:8000/v2/health/live"]}
    periodSeconds: 15
    timeoutSeconds: 10
    failureThreshold: 4
  securityContext:
    {{- include "gateway.containerSecurity" . | nindent 4 }}
  resources:
    {{- $resources := deepCopy .Values.triton.resources }}
    {{- if gt (int .Values.triton.gpus) 0 }}
    {{- $gpu := dict .Values.triton.gpuResource (int .Values.triton.gpus) }}
    {{- $_ := set $resources "limits" (merge $gpu (default dict $resources.limits)) }}
    {{- end }}
    {{- toYaml $resources | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models, readOnly: true{{ include "gateway.modelsSubPath" . }}}
    - {name: shm, mountPath: /dev/shm}
    - {name: triton-tmp, mountPath: /tmp}
    - {name: tensorrt-cache, mountPath: /var/cache/tensorrt}
{{- end }}

{{- define "gateway.modelsSubPath" -}}
{{- with .Values.models.subPath }}, subPath: {{ . }}{{ end }}
{{- end }}

{{- define "gateway.container" -}}
- name: gateway
  image: {{ include "gateway.image" (list .Values.image .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [serve]
  env:
    {{- include "gateway.env" . | trim | nindent 4 }}
  ports:
    - {name: http, containerPort: 8080}
    - {name: operate, containerPort: {{ int .Values.gateway.operatePort }}}
  # It answers as soon as the process runs; loading models is the readiness probe's matter.
  startupProbe:
    httpGet: {path: /livez, port: operate}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: {{ div (add (int .Values.gateway.startupSeconds) 1) 2 }}
  livenessProbe:
    httpGet: {path: /livez, port: operate}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  readinessProbe:
    httpGet: {path: /readyz, port: operate}
    periodSeconds: 3
    timeoutSeconds: 5
    failureThreshold: 2
  {{- if .Values.shutdown.preStopSeconds }}
  lifecycle:
    preStop: {sleep: {seconds: {{ int .Values.shutdown.preStopSeconds }}}}
  {{- end }}
  securityContext:
    {{- include "gateway.containerSecurity" . | nindent 4 }}
  resources:
    {{- toYaml .Values.gateway.resources | nindent 4 }}
  volumeMounts:
    {{- if include "gateway.hasModels" . }}
    - {name: models, mountPath: /srv/gateway/triton/models, readOnly: true{{ include "gateway.modelsSubPath" . }}}
    {{- end }}
    - {name: shm, mountPath: /dev/shm}
    - {name: tmp, mountPath: /tmp}
    - {name: state, mountPath: /var/lib/gateway}
    {{- if .Values.manifest.existingConfigMap }}
    - {name: manifest, mountPath: /etc/gateway/manifest, readOnly: true}
    {{- end }}
    {{- if .Values.catalogue.existingConfigMap }}
    - {name: catalogue, mountPath: /etc/gateway/catalogue, readOnly: true}
    {{- end }}
    {{- if include "gateway.hasKeys" . }}
    - {name: keys, mountPath: /etc/gateway/keys, readOnly: true}
    {{- end }}
    {{- if .Values.tls.existingSecret }}
    - {name: tls, mountPath: /etc/gateway/tls, readOnly: true}
    {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "gateway.volumes" -}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory.sizeLimit }}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- if .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim }}, readOnly: true}
{{- else if .Values.models.fetch.source }}
- name: models
  emptyDir: {sizeLimit: {{ .Values.models.fetch.sizeLimit }}}
{{- end }}
- name: state
  {{- if .Values.state.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.state.existingClaim }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ int .Values.state.size }}Gi}
  {{- end }}
{{- if include "gateway.sidecar" . }}
- name: triton-tmp
  emptyDir: {sizeLimit: 2Gi}
- name: tensorrt-cache
  {{- if .Values.triton.tensorrtCache.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.triton.tensorrtCache.existingClaim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- if .Values.manifest.existingConfigMap }}
- name: manifest
  configMap: {name: {{ .Values.manifest.existingConfigMap }}}
{{- end }}
{{- if .Values.catalogue.existingConfigMap }}
- name: catalogue
  configMap: {name: {{ .Values.catalogue.existingConfigMap }}}
{{- end }}
{{- if include "gateway.hasKeys" . }}
- name: keys
  secret: {secretName: {{ default (printf "%s-keys" (include "gateway.fullname" .)) .Values.keys.existingSecret }}, defaultMode: 288} # 0440
{{- end }}
{{- if .Values.tls.existingSecret }}
- name: tls
  secret: {secretName: {{ .Values.tls.existingSecret }}, defaultMode: 288}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
