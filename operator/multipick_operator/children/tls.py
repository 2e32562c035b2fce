"""What gateways speak to the pickers, and what Istio is told of it. Measured and read: docs/gateways.md."""

from typing import Final

from multipick_operator.api.pool import Pool
from multipick_operator.api.routing import PickerTls
from multipick_operator.children.context import Context
from multipick_operator.children.names import PICKER, Manifest, manifest, picker_name

DESTINATION_RULE: Final = ("networking.istio.io/v1", "DestinationRule")

_TLS: Final = ("envoy", "agentgateway", "kgateway", "nginx", "gke-")
"""In the names of classes whose gateways speak TLS to every picker; most of them can't be told otherwise."""

_ISTIO: Final = "istio"


def speaks_tls(pool: Pool, context: Context) -> bool:
    """By the spec, else as the Gateways' classes want it; plaintext where nobody knows, as the chart's own Envoy."""
    chosen = pool.spec.routing.gateway.picker_tls
    if chosen is not PickerTls.AUTO:
        return chosen is PickerTls.SELF_SIGNED
    return any(part in name for name in context.gateway_classes for part in _TLS)


def destination_rules(pool: Pool, context: Context) -> list[Manifest]:
    """For Istio: TLS as the pickers have it, and a picker that is dead is asked nothing more.

    Without it, of a picker killed under load tens to hundreds of requests get 500; with it, none of two pickers.
    """
    if not any(_ISTIO in name for name in context.gateway_classes):
        return []
    tls = {"mode": "SIMPLE", "insecureSkipVerify": True} if speaks_tls(pool, context) else {"mode": "DISABLE"}
    policy = {
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
    name = picker_name(pool)
    return [manifest(pool, *DESTINATION_RULE, name, PICKER, spec={"host": name, "trafficPolicy": policy})]
