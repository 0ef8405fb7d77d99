{{/* Labels every object carries. */}}
{{- define "cilium.labels" -}}
app.kubernetes.io/part-of: cilium
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "cilium.agent.image" -}}
{{- with .Values.image -}}
{{- if .override }}{{ .override }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "cilium.operator.image" -}}
{{- with .Values.operator.image -}}
{{- if .override }}{{ .override }}{{ else }}{{ .repository }}{{ .suffix }}:{{ .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "cilium.envoy.image" -}}
{{- with .Values.envoy.image -}}
{{- if .override }}{{ .override }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Agents and operator talk to the API server before the `kubernetes` service works. */}}
{{- define "cilium.apiserver.env" -}}
{{- if .Values.k8sServiceHost }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.k8sServiceHost | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.k8sServicePort | quote }}
{{- end }}
{{- end }}
