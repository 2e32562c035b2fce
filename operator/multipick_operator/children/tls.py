"""What gateways speak to the pickers, on which port, and what Istio is told of it. Seen and read: docs/gateways.md."""

from typing import Any, Final

from multipick_operator.api.pool import Pool
from multipick_operator.api.routing import PickerTls
from multipick_operator.children.context import Context
from multipick_operator.children.names import PICKER, Manifest, manifest, picker_name

EXT_PROC_PORT: Final = 9002

TLS_PORT: Final = 9443
"""Of the pickers' Service, where Istio is the gateway: it leads to the same port of the pickers, which take both."""

DESTINATION_RULE: Final = ("networking.istio.io/v1", "DestinationRule")

_TLS: Final = ("envoy", "agentgateway", "kgateway", "nginx", "gke-")
"""In the names of classes whose gateways speak TLS to every picker; most of them can't be told otherwise."""

_ISTIO: Final = "istio"


def asked_port(pool: Pool, context: Context) -> int:
    """Of the pickers' Service, that gateways ask."""
    return TLS_PORT if _takes_both(context) and _speaks_tls(pool, context) else EXT_PROC_PORT


def listen_tls(pool: Pool, context: Context) -> dict[str, Any]:
    """Of the picker's `listen`; empty: plaintext."""
    if _takes_both(context):
        return {"tls": {"mode": "self-signed", "plaintext": True}}
    return {"tls": {"mode": "self-signed"}} if _speaks_tls(pool, context) else {}


def service_ports(pool: Pool, context: Context) -> list[dict[str, Any]]:
    """Of the pickers' Services, for ext_proc."""
    both, tls = _takes_both(context), _speaks_tls(pool, context)
    ports = [_service_port("grpc-ext-proc", EXT_PROC_PORT, tls and not both)]
    return [*ports, _service_port("grpc-ext-proc-tls", TLS_PORT, True)] if both else ports


def destination_rules(pool: Pool, context: Context) -> list[Manifest]:
    """For Istio: TLS on the one port and none on the other, and a picker that is dead is asked nothing more.

    Without it, of a picker killed under load tens to hundreds of requests get 500; with it, none of two pickers.
    """
    if not _takes_both(context):
        return []
    ports = [
        _port_policy(EXT_PROC_PORT, {"mode": "DISABLE"}),
        _port_policy(TLS_PORT, {"mode": "SIMPLE", "insecureSkipVerify": True}),
    ]
    name = picker_name(pool)
    spec = {"host": name, "trafficPolicy": {"portLevelSettings": ports}}
    return [manifest(pool, *DESTINATION_RULE, name, PICKER, spec=spec)]


def _takes_both(context: Context) -> bool:
    """Whether the pickers serve whatever is spoken: where Istio is a gateway.

    One rule tells it what all pickers of a Service's port speak, and as the rule changes, Envoy ends all that is under
    way through them. So a change must neither roll the pickers nor change a rule: it is another port that is asked.
    """
    return any(_ISTIO in name for name in context.gateway_classes)


def _speaks_tls(pool: Pool, context: Context) -> bool:
    """By the spec, else as the Gateways' classes want it; plaintext where nobody knows, as the chart's own Envoy."""
    chosen = pool.spec.routing.gateway.picker_tls
    if chosen is not PickerTls.AUTO:
        return chosen is PickerTls.SELF_SIGNED
    return any(part in name for name in context.gateway_classes for part in _TLS)


def _service_port(name: str, port: int, tls: bool) -> dict[str, Any]:
    return {
        "name": name,
        "port": port,
        "targetPort": "grpc-ext-proc",
        "protocol": "TCP",
        "appProtocol": "http2" if tls else "kubernetes.io/h2c",  # the second is plaintext
    }


def _port_policy(port: int, tls: dict[str, Any]) -> dict[str, Any]:
    return {
        "port": {"number": port},
        "tls": tls,
        "connectionPool": {"tcp": {"connectTimeout": "1s"}},
        "outlierDetection": {
            "consecutive5xxErrors": 1,
            "consecutiveGatewayErrors": 1,
            "interval": "1s",
            "baseEjectionTime": "5s",
            "maxEjectionPercent": 100,
            "minHealthPercent": 0,
        },
    }
