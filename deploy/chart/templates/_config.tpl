{{/* Every key the agent and the operator read, as YAML. extraConfig goes on top. */}}
{{- define "cilium.config" -}}
admission-port: {{ .Values.admission.port | quote }}
agent-health-port: {{ .Values.healthPort | quote }}
auto-direct-node-routes: "false"
bpf-events-drop-enabled: {{ .Values.bpf.events.drop.enabled | quote }}
bpf-events-trace-enabled: {{ .Values.bpf.events.trace.enabled | quote }}
bpf-lb-external-clusterip: "false"
bpf-root: /sys/fs/bpf
cgroup-root: {{ .Values.cgroup.hostRoot | quote }}
cluster-id: {{ .Values.cluster.id | quote }}
cluster-name: {{ .Values.cluster.name | quote }}
cni-chaining-mode: none
cni-exclusive: {{ .Values.cni.exclusive | quote }}
debug: {{ .Values.debug.enabled | quote }}
enable-admission: {{ .Values.admission.enabled | quote }}
enable-bpf-masquerade: {{ .Values.enableIPv4Masquerade | quote }}
enable-endpoint-routes: "false"
enable-dns-proxy: {{ .Values.dnsProxy.enabled | quote }}
enable-envoy-config: "false"
enable-gateway-api: "false"
enable-hubble: {{ .Values.hubble.enabled | quote }}
enable-ingress-controller: {{ .Values.ingressController.enabled | quote }}
enable-ipsec: "false"
enable-ipv4: {{ .Values.ipv4.enabled | quote }}
enable-ipv4-egress-gateway: "false"
enable-ipv4-masquerade: {{ .Values.enableIPv4Masquerade | quote }}
enable-ipv6: {{ .Values.ipv6.enabled | quote }}
enable-ipv6-masquerade: "false"
enable-l2-announcements: {{ .Values.l2announcements.enabled | quote }}
enable-l7-proxy: {{ .Values.envoy.enabled | quote }}
enable-local-redirect-policy: "false"
enable-policy: default
enable-policy-secrets-sync: "false"
enable-wireguard: "false"
enforce-ingress-https: {{ .Values.ingressController.enforceHttps | quote }}
hubble-event-buffer-capacity: {{ .Values.hubble.eventBufferCapacity | quote }}
hubble-redact-enabled: {{ .Values.hubble.redact.enabled | quote }}
hubble-redact-http-headers-allow: {{ .Values.hubble.redact.http.headers.allow | join "," | quote }}
hubble-redact-http-headers-deny: {{ .Values.hubble.redact.http.headers.deny | join "," | quote }}
hubble-redact-http-urlquery: {{ .Values.hubble.redact.http.urlQuery | quote }}
hubble-redact-http-userinfo: {{ .Values.hubble.redact.http.userInfo | quote }}
hubble-socket-path: {{ .Values.hubble.socketPath | quote }}
identity-allocation-mode: crd
identity-gc-interval: {{ .Values.operator.identityGCInterval | quote }}
cilium-endpoint-gc-interval: {{ .Values.operator.endpointGCInterval | quote }}
ipam: {{ .Values.ipam.mode | quote }}
ipv4-service-range: {{ .Values.ipv4ServiceRange | quote }}
kube-proxy-replacement: {{ .Values.kubeProxyReplacement | quote }}
l2-announcements-lease-duration: {{ .Values.l2announcements.leaseDuration | quote }}
l2-announcements-renew-deadline: {{ .Values.l2announcements.leaseRenewDeadline | quote }}
l2-announcements-retry-period: {{ .Values.l2announcements.leaseRetryPeriod | quote }}
loadbalancer-l7: ""
mesh-auth-mutual-enabled: "false"
mtu: {{ .Values.MTU | quote }}
monitor-aggregation: {{ .Values.bpf.monitorAggregation | quote }}
monitor-aggregation-interval: {{ .Values.bpf.monitorInterval | quote }}
operator-api-serve-addr: 127.0.0.1:{{ .Values.operator.healthPort }}
policy-cidr-match-mode: ""
policy-default-local-cluster: "true"
routing-mode: {{ .Values.routingMode | quote }}
state-dir: {{ .Values.daemon.runPath | quote }}
tunnel-port: {{ .Values.tunnelPort | quote }}
tunnel-protocol: {{ .Values.tunnelProtocol | quote }}
{{- end }}
