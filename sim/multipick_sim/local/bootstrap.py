"""Envoy's bootstrap, in two styles: the one that multipick brings, and one like a GIE gateway's.

`standalone`: the request's body is buffered, and the picker may fail: requests then go round-robin. `gateway`: full
duplex both ways, as InferencePool gateways have it; without a picker there are no requests. Both know the pool's
endpoints, and let the picker's answer override their own choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from multipick_epp.config import GATEWAY_PATIENCE_S
from multipick_epp.extproc.health import EXT_PROC_SERVICE
from multipick_epp.extproc.messages import LB_NAMESPACE, SERVED_KEY, SUBSET_KEY, SUBSET_NAMESPACE
from multipick_epp.extproc.replies import DESTINATION

Json = dict[str, Any]
Style = Literal["standalone", "gateway"]

MAX_BODY_BYTES: Final = 64 << 20  # of a request: what the picker takes at most
REALTIME: Final = "/v1/realtime"
"""Where engines speak WebSocket."""

_BOUNDS: Final = ("max_connections", "max_pending_requests", "max_requests", "max_retries")  # Envoy's own are small
_TYPE: Final = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What Envoy is told. Port 0 takes a free one."""

    endpoints: Sequence[str]  # ip:port of the pool
    ext_proc_ports: Sequence[int]  # pickers on this machine
    style: Style = "standalone"
    port: int = 0
    direct_port: int | None = None  # a listener without ext_proc beside it, for comparison
    admin_port: int = 0
    retries: int = 0  # of a failed try, each on the next endpoint of the pick


def render(bootstrap: Bootstrap) -> Json:
    """The bootstrap as Envoy's JSON."""
    unread = _unread() if bootstrap.style == "standalone" else {}
    filters = [_strip(), _ext_proc(bootstrap.style)]
    listeners = [_listener("pooled", bootstrap.port, filters, bootstrap.retries, unread)]
    if bootstrap.direct_port is not None:
        listeners.append(_listener("direct", bootstrap.direct_port, [], bootstrap.retries, {}))
    return {
        "admin": {"address": _address("127.0.0.1", bootstrap.admin_port)},
        # Else Envoy ends every ext_proc stream with RST_STREAM, and a proxy in between takes that for an attack.
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"envoy.reloadable_features.ext_proc_graceful_grpc_close": True},
                }
            ]
        },
        "static_resources": {
            "listeners": listeners,
            "clusters": [_pool(bootstrap.endpoints), _pickers(bootstrap.ext_proc_ports, bootstrap.style)],
        },
    }


def _elsewhere() -> Json:
    """Of a retry: not where it just failed. A dead picker has the fewest requests, so of two it is drawn three times of
    four: that takes many draws.
    """
    kind = f"{_TYPE}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    predicate = {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": kind}}
    return {"retry_host_predicate": [predicate], "host_selection_retry_max_attempts": 32}


def _unbounded() -> Json:
    return {"thresholds": [dict.fromkeys(_BOUNDS, 1_000_000)]}


def _listener(name: str, port: int, filters: Sequence[Json], retries: int, unread: Json) -> Json:
    """`unread` is what the filters are told for requests that have no end of a body to wait for."""
    route: Json = {"cluster": "pool", "timeout": "0s", "idle_timeout": "0s"}
    if retries:
        route["retry_policy"] = {
            "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": retries,
            # The host just refused is known to be dead before the picker knows.
            **_elsewhere(),
        }
    connections: Json = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "stream_idle_timeout": "0s",  # a model may think for long
        "http2_protocol_options": {"allow_connect": True},  # WebSockets over HTTP/2 (RFC 8441)
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    # Per route, not for the connection: else responses too would be buffered to that size.
                    "request_body_buffer_limit": MAX_BODY_BYTES,
                    "routes": [
                        {
                            "match": {"prefix": REALTIME},
                            "route": {**route, "upgrade_configs": [{"upgrade_type": "websocket"}]},
                            "typed_per_filter_config": unread,
                        },
                        {"match": {"prefix": "/"}, "route": route},
                    ],
                }
            ]
        },
        "http_filters": [*filters, _filter("router", "router.v3.Router", {"suppress_envoy_headers": True})],
    }
    return {
        "name": name,
        "address": _address("127.0.0.1", port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]}
        ],
    }


def _strip() -> Json:
    # What a client says here would be obeyed wherever the picker's word is missing.
    names = (DESTINATION, SUBSET_KEY, SERVED_KEY)
    mutations = {"request_mutations": [{"remove": name} for name in names]}
    return _filter("strip", "header_mutation.v3.HeaderMutation", {"mutations": mutations})


def _buffered(request_body: str = "BUFFERED") -> Json:
    return {
        "request_header_mode": "SEND",
        "request_body_mode": request_body,
        "request_trailer_mode": "SEND",  # a request may be nothing but headers and trailers
        "response_header_mode": "SEND",
        "response_body_mode": "NONE",  # no token passes through the picker
        "response_trailer_mode": "SEND",  # keeps the stream open until the response ends
    }


def _unread() -> Json:
    # What follows an upgrade is no body, and buffering it would wait for ever.
    overrides = {"processing_mode": _buffered(request_body="NONE")}
    return {
        "envoy.filters.http.ext_proc": {
            "@type": f"{_TYPE}.filters.http.ext_proc.v3.ExtProcPerRoute",
            "overrides": overrides,
        }
    }


def _ext_proc(style: Style) -> Json:
    if style == "standalone":
        mode = _buffered()
    else:
        mode = {
            "request_header_mode": "SEND",
            "request_body_mode": "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SEND",  # mandatory with full duplex
            "response_header_mode": "SEND",
            "response_body_mode": "FULL_DUPLEX_STREAMED",
            "response_trailer_mode": "SEND",
        }
    config = {
        "grpc_service": {
            "envoy_grpc": {"cluster_name": "pickers", "authority": "epp"},
            # A picker that is gone, or silent, has not answered: another one is asked the same.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset,unavailable",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
                **_elsewhere(),
            },
        },
        "failure_mode_allow": style == "standalone",
        "message_timeout": f"{GATEWAY_PATIENCE_S}s",
        "processing_mode": mode,
        "metadata_options": {
            "forwarding_namespaces": {"untyped": [LB_NAMESPACE, SUBSET_NAMESPACE]},
            "receiving_namespaces": {"untyped": [LB_NAMESPACE]},
        },
    }
    return _filter("ext_proc", "ext_proc.v3.ExternalProcessor", config)


def _filter(name: str, kind: str, config: Json) -> Json:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{_TYPE}.filters.http.{kind}", **config}}


def _pool(endpoints: Sequence[str]) -> Json:
    policies = f"{_TYPE}.load_balancing_policies"
    round_robin = {"@type": f"{policies}.round_robin.v3.RoundRobin"}
    override = {
        "@type": f"{policies}.override_host.v3.OverrideHost",
        "override_host_sources": [
            {"metadata": {"key": LB_NAMESPACE, "path": [{"key": DESTINATION}]}},
            {"header": DESTINATION},
        ],
        "selected_host_key": {"key": LB_NAMESPACE, "path": [{"key": SERVED_KEY}]},
        "fallback_policy": _policy("round_robin", round_robin),
    }
    return {
        "name": "pool",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _unbounded(),
        "load_balancing_policy": _policy("override_host", override),
        "load_assignment": _assignment("pool", [endpoint.rpartition(":") for endpoint in endpoints]),
    }


def _policy(name: str, config: Json) -> Json:
    extension = {"name": f"envoy.load_balancing_policies.{name}", "typed_config": config}
    return {"policies": [{"typed_extension_config": extension}]}


def _pickers(ports: Sequence[int], style: Style) -> Json:
    """What each value is for, and how it was found: docs/gateways.md."""
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": "pickers",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # A picker that is dead has the fewest requests, and would get the next ones too.
        "health_checks": [
            {
                "timeout": "3s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": EXT_PROC_SERVICE},
            }
        ],
        # The first connection that is refused or breaks tells it sooner.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 100,
        },
        # Where all look dead: without a picker requests go round-robin, or there are none, and then all are tried. What
        # is learnt of one within a second of another counts at once: pickers that are restarted come and go so.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0 if style == "standalone" else 1},
            "update_merge_window": "0s",
        },
        "circuit_breakers": _unbounded(),  # each request in flight is an open stream
        "typed_extension_protocol_options": {
            protocol: {
                "@type": f"type.googleapis.com/{protocol}",
                "explicit_http_config": {
                    # Nothing else ends the streams of a picker that hangs.
                    "http2_protocol_options": {"connection_keepalive": {"interval": "1s", "timeout": "3s"}}
                },
            }
        },
        "load_assignment": _assignment("pickers", [("127.0.0.1", ":", str(port)) for port in ports]),
    }


def _assignment(cluster: str, addresses: Sequence[tuple[str, str, str]]) -> Json:
    endpoints = [{"endpoint": {"address": _address(host, int(port))}} for host, _, port in addresses]
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}
