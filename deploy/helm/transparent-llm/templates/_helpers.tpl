{{/* Labels of every object. Pods have only the first, so that another chart does not restart them. */}}
{{- define "transparent-llm.labels" -}}
app.kubernetes.io/part-of: transparent-llm
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | quote }}
{{- end }}

{{- define "transparent-llm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "transparent-llm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Of one name: pods are spread over nodes, each version by itself. */}}
{{- define "transparent-llm.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      app.kubernetes.io/name: {{ . }}
  matchLabelKeys: [pod-template-hash]
{{- end }}

{{/* The server's, and those of the init container that fetches for it. */}}
{{- define "transparent-llm.serverMounts" -}}
- name: settings
  mountPath: /etc/transparent-llm
  readOnly: true
- name: models
  mountPath: /models
  readOnly: true
- name: cache
  mountPath: /cache
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "transparent-llm.pull" -}}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{- define "transparent-llm.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* How many replicas there are at the quietest time. */}}
{{- define "transparent-llm.leastReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.minReplicas }}{{ else }}{{ .Values.replicas }}{{ end }}
{{- end }}

{{- define "transparent-llm.dns" -}}
- ports: # names, wherever the cluster answers them: some ask a cache on the node, which no selector finds
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{/* Envoy's files, which stand in deploy/envoy; files/envoy is a link to it. */}}
{{- define "transparent-llm.envoyFiles" -}}
data:
  {{- range list "envoy.yaml" "envoy-tls.yaml" "edge-certificate.yaml" "replica-authority.yaml" }}
  {{ . }}: {{ $.Files.Get (printf "files/envoy/%s" .) | quote }}
  {{- end }}
binaryData:
  transparent_llm.pb: {{ .Files.Get "files/envoy/transparent_llm.pb" | b64enc }}
{{- end }}

{{/* The page, which Envoy shows to browsers. */}}
{{- define "transparent-llm.pageFiles" -}}
data:
  {{- range list "index.html" "page.css" }}
  {{ . }}: {{ $.Files.Get (printf "files/envoy/page/%s" .) | quote }}
  {{- end }}
binaryData:
  page.js.gz: {{ .Files.Get "files/envoy/page/page.js.gz" | b64enc }}
{{- end }}
