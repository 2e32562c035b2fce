# What istiod makes of each Gateway: a stock Envoy, without the pilot-agent, and a Service that needs no load balancer.
# The names in @ are filled in by istio.py.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{.ServiceAccount | quote}}
  namespace: {{.Namespace | quote}}
  labels: {"gateway.networking.k8s.io/gateway-name": {{.Name | quote}}}
  ownerReferences:
  - {apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: "{{.Name}}", uid: "{{.UID}}"}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{.DeploymentName | quote}}
  namespace: {{.Namespace | quote}}
  labels:
    {{- toJsonMap
      .InfrastructureLabels
      (strdict
        "gateway.networking.k8s.io/gateway-name" .Name
        "gateway.networking.k8s.io/gateway-class-name" .GatewayClass
        "gateway.istio.io/managed" "istio.io-gateway-controller"
      ) | nindent 4 }}
  ownerReferences:
  - {apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: "{{.Name}}", uid: "{{.UID}}"}
spec:
  selector:
    matchLabels:
      "{{.GatewayNameLabel}}": {{.Name}}
  template:
    metadata:
      labels:
        {{- toJsonMap
          (strdict
            "sidecar.istio.io/inject" "false"
            "service.istio.io/canonical-name" .DeploymentName
            "service.istio.io/canonical-revision" "latest"
           )
          .InfrastructureLabels
          (strdict
            "gateway.networking.k8s.io/gateway-name" .Name
            "gateway.networking.k8s.io/gateway-class-name" .GatewayClass
            "gateway.istio.io/managed" "istio.io-gateway-controller"
          ) | nindent 8 }}
    spec:
      serviceAccountName: {{.ServiceAccount | quote}}
      terminationGracePeriodSeconds: 2
      containers:
      - name: istio-proxy
        image: "@IMAGE@"
        imagePullPolicy: Never
        command: ["/usr/local/bin/envoy"]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: INSTANCE_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        args:
        - --concurrency
        - "1"
        - --drain-time-s
        - "1"
        - --config-yaml
        - |
          node:
            id: router~$(INSTANCE_IP)~$(POD_NAME).$(POD_NAMESPACE)~$(POD_NAMESPACE).svc.cluster.local
            cluster: {{.DeploymentName}}.{{.Namespace}}
            metadata:
              NAMESPACE: {{.Namespace}}
              NAME: $(POD_NAME)
              CLUSTER_ID: Kubernetes
              ISTIO_VERSION: "1.31.0"
              SERVICE_ACCOUNT: {{.ServiceAccount}}
              WORKLOAD_NAME: {{.DeploymentName}}
              INSTANCE_IPS: $(INSTANCE_IP)
              LABELS: {"gateway.networking.k8s.io/gateway-name": "{{.Name}}", "gateway.networking.k8s.io/gateway-class-name": "{{.GatewayClass}}"}
          admin: {address: {socket_address: {address: 0.0.0.0, port_value: 15000}}}
          dynamic_resources:
            ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]}
            cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
            lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
          static_resources:
            clusters:
            - name: xds-grpc
              type: STATIC
              connect_timeout: 5s
              typed_extension_protocol_options:
                envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
                  "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
                  explicit_http_config: {http2_protocol_options: {}}
              load_assignment:
                cluster_name: xds-grpc
                endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "@ISTIOD@", port_value: 15010}}}}]}]
        readinessProbe:
          httpGet: {path: /ready, port: 15000}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  labels:
    {{- toJsonMap
      .InfrastructureLabels
      (strdict
        "gateway.networking.k8s.io/gateway-name" .Name
        "gateway.networking.k8s.io/gateway-class-name" .GatewayClass
      ) | nindent 4 }}
  name: {{.DeploymentName | quote}}
  namespace: {{.Namespace | quote}}
  ownerReferences:
  - {apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: "{{.Name}}", uid: "{{.UID}}"}
spec:
  ports:
  {{- range $key, $val := .Ports }}
  - name: {{ $val.Name | quote }}
    port: {{ $val.Port }}
    protocol: {{ $val.Protocol }}
    appProtocol: {{ $val.AppProtocol }}
  {{- end }}
  selector:
    "{{.GatewayNameLabel}}": {{.Name}}
  type: ClusterIP
