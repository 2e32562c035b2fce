{{/* To an endpoint of the pool; call with the gateway's values. */}}
{{- define "multipick.envoyRoute" -}}
cluster: pool
timeout: 0s
idle_timeout: 0s
{{- if .retries }}
retry_policy:
  retry_on: connect-failure,refused-stream,reset-before-request,retriable-status-codes
  retriable_status_codes: [503]
  num_retries: {{ .retries }}
  # the host just refused is known to be dead before the name server or the picker knows
  retry_host_predicate:
    - name: envoy.retry_host_predicates.previous_hosts
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
  host_selection_retry_max_attempts: 32
{{- end }}
{{- end }}

{{/* Envoy's bootstrap in front of one pool; call with (dict "gateway" values "pool" name "namespace" namespace). */}}
{{- define "multipick.envoy" -}}
{{- $gateway := .gateway -}}
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
layered_runtime:
  layers:
    - name: static
      static_layer:
        # else Envoy ends every ext_proc stream with RST_STREAM
        envoy.reloadable_features.ext_proc_graceful_grpc_close: true
static_resources:
  listeners:
    - name: llm
      address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: llm
                generate_request_id: true
                stream_idle_timeout: 0s # a model may think for long
                http2_protocol_options: {allow_connect: true} # WebSockets over HTTP/2
                # clients that keep their connections would stay with an Envoy that leaves until it is gone, and be cut:
                # each connection ends, after an answer, in half the time that a leaving one has
                http1_safe_max_connection_duration: true
                common_http_protocol_options: {max_connection_duration: {{ max 1 (div $gateway.drainSeconds 2) }}s}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      request_body_buffer_limit: {{ $gateway.maxBodyBytes | int64 }}
                      routes:
                        - match: {prefix: /v1/realtime}
                          route:
                            {{- include "multipick.envoyRoute" $gateway | nindent 28 }}
                            upgrade_configs: [{upgrade_type: websocket}]
                          typed_per_filter_config:
                            envoy.filters.http.ext_proc:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
                              overrides:
                                # what follows an upgrade is no body, and buffering it would wait for ever
                                processing_mode:
                                  request_header_mode: SEND
                                  request_body_mode: NONE
                                  request_trailer_mode: SEND
                                  response_header_mode: SEND
                                  response_body_mode: NONE
                                  response_trailer_mode: SEND
                        - match: {prefix: /}
                          route:
                            {{- include "multipick.envoyRoute" $gateway | nindent 28 }}
                http_filters:
                  # what a client says here would be obeyed wherever the picker's word is missing
                  - name: envoy.filters.http.strip
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
                      mutations:
                        request_mutations:
                          - {remove: x-gateway-destination-endpoint}
                          - {remove: x-gateway-destination-endpoint-subset}
                          - {remove: x-gateway-destination-endpoint-served}
                  - name: envoy.filters.http.ext_proc
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
                      grpc_service:
                        envoy_grpc: {cluster_name: pickers, authority: epp}
                        # a picker that is gone, or silent, has not answered: another one is asked the same
                        retry_policy:
                          retry_on: connect-failure,refused-stream,reset,unavailable
                          num_retries: 3
                          retry_back_off: {base_interval: 0.025s, max_interval: 0.25s}
                          retry_host_predicate:
                            - name: envoy.retry_host_predicates.previous_hosts
                              typed_config:
                                "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                          host_selection_retry_max_attempts: 32
                      failure_mode_allow: true # without a picker requests go round-robin
                      message_timeout: 30s # longer than any decision of the picker may take
                      processing_mode:
                        request_header_mode: SEND
                        request_body_mode: BUFFERED
                        request_trailer_mode: SEND
                        response_header_mode: SEND
                        response_body_mode: NONE # no token passes through the picker
                        response_trailer_mode: SEND # keeps the stream open until the response ends
                      metadata_options:
                        forwarding_namespaces: {untyped: [envoy.lb, envoy.lb.subset_hint]}
                        receiving_namespaces: {untyped: [envoy.lb]}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                      suppress_envoy_headers: true
    - name: stats # readiness and metrics, and nothing else of the admin interface
      address: {socket_address: {address: 0.0.0.0, port_value: 9902}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: stats
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {path: /ready}
                          route: {cluster: admin}
                        - match: {path: /stats/prometheus}
                          route: {cluster: admin}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: pool
      # the headless Service of the engines: its addresses are the ready pods
      type: STRICT_DNS
      dns_refresh_rate: 2s
      respect_dns_ttl: false
      connect_timeout: 1s
      # while a pool's port changes, each pod is there twice, and nobody listens on one of the two: such an address is
      # nobody's second choice. A busy engine may be late; what the name server no longer names is gone at once
      health_checks:
        - timeout: 10s
          interval: 5s
          no_traffic_interval: 5s
          unhealthy_threshold: 3
          healthy_threshold: 1
          http_health_check: {path: /health}
      ignore_health_on_host_removal: true
      common_lb_config: {healthy_panic_threshold: {value: 1}} # where all look dead, all are tried
      circuit_breakers: {thresholds: [{max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000, max_retries: 1000000}]}
      load_balancing_policy:
        policies:
          - typed_extension_config:
              name: envoy.load_balancing_policies.override_host
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost
                override_host_sources:
                  - metadata: {key: envoy.lb, path: [{key: x-gateway-destination-endpoint}]}
                  - header: x-gateway-destination-endpoint
                selected_host_key: {key: envoy.lb, path: [{key: x-gateway-destination-endpoint-served}]}
                fallback_policy:
                  policies:
                    - typed_extension_config:
                        name: envoy.load_balancing_policies.round_robin
                        typed_config:
                          "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin
      load_assignment:
        cluster_name: pool
        endpoints:
          - lb_endpoints:
              {{- range $gateway.pool.ports }}
              - endpoint: {address: {socket_address: {address: {{ $.pool }}-engine.{{ $.namespace }}.svc, port_value: {{ . }}}}}
              {{- end }}
    - name: pickers
      # their headless Service: each picker is a host
      type: STRICT_DNS
      dns_refresh_rate: 2s
      connect_timeout: 1s
      lb_policy: LEAST_REQUEST
      # a picker that is dead has the fewest requests, and would get the next ones too
      health_checks:
        - timeout: 3s
          interval: 1s
          no_traffic_interval: 1s
          unhealthy_threshold: 2
          healthy_threshold: 1
          grpc_health_check: {service_name: envoy.service.ext_proc.v3.ExternalProcessor}
      # the first connection that is refused or breaks tells it sooner
      outlier_detection:
        split_external_local_origin_errors: true
        consecutive_local_origin_failure: 1
        interval: 1s
        base_ejection_time: 5s
        max_ejection_time: 30s
        max_ejection_percent: 100
      # where all look dead, requests go round-robin; what is learnt of one within a second of another counts at once
      common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}
      # every request in flight is an open stream
      circuit_breakers: {thresholds: [{max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000, max_retries: 1000000}]}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options:
              connection_keepalive: {interval: 1s, timeout: 3s} # nothing else ends the streams of a picker that hangs
      load_assignment:
        cluster_name: pickers
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: {{ .pool }}-epp-pods.{{ .namespace }}.svc, port_value: 9002}}}
    - name: admin
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: admin
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
{{- end }}
