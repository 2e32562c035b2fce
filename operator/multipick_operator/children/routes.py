"""Gateway API: the object that gateways know the pool by, and a route to it."""

from multipick_operator.api.pool import Pool
from multipick_operator.children.context import MAX_PORTS, Context
from multipick_operator.children.names import (
    PICKER,
    Manifest,
    endpoint_labels,
    manifest,
    picker_name,
    without_nothing,
)
from multipick_operator.children.tls import asked_port

GIE_GROUP = "inference.networking.k8s.io"
_ENGINES_OWN = frozenset(
    {"v1", "v2", "generate", "inference", "invocations", "pooling", "classify", "score", "rerank", "tokenize"}
    | {"detokenize", "render", "health", "version", "metrics"}
)
"""First parts of paths that vLLM and SGLang serve."""


def routes(pool: Pool, context: Context) -> list[Manifest]:
    """The GIE v1 InferencePool and, on request, an HTTPRoute. Their status belongs to gateways: never applied."""
    gateway = pool.spec.routing.gateway
    made = []
    if gateway.create_inference_pool:
        made.append(_inference_pool(pool, context))
    if gateway.http_route.create:
        made.append(_http_route(pool))
    return made


def _inference_pool(pool: Pool, context: Context) -> Manifest:
    spec = {
        "selector": {"matchLabels": endpoint_labels(pool)},
        "targetPorts": [{"number": port} for port in context.ports(pool)[:MAX_PORTS]],
        "endpointPickerRef": {
            "name": picker_name(pool),
            "port": {"number": asked_port(pool, context)},
            "failureMode": pool.spec.routing.picker.failure_mode.value,
        },
    }
    return manifest(pool, f"{GIE_GROUP}/v1", "InferencePool", pool.name, PICKER, spec=spec)


def _http_route(pool: Pool) -> Manifest:
    route = pool.spec.routing.gateway.http_route
    parents = [
        without_nothing(
            {"name": ref.name, "namespace": ref.namespace, "sectionName": ref.section_name, "port": ref.port}
        )
        for ref in route.parent_refs
    ]
    rewrite = route.rewrite_path_prefix or _rewritten(route.path_prefix)
    rule = without_nothing(
        {
            "matches": [
                without_nothing(
                    {
                        "path": {"type": "PathPrefix", "value": route.path_prefix},
                        "headers": [{"type": "Exact", "name": one.name, "value": one.value} for one in route.headers],
                    }
                )
            ],
            "filters": [
                {
                    "type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": rewrite}},
                }
            ]
            if rewrite
            else [],
            "backendRefs": _backends(pool),
            "timeouts": {"request": f"{route.request_timeout_seconds}s"},
        }
    )
    spec = without_nothing({"parentRefs": parents, "hostnames": list(route.hostnames), "rules": [rule]})
    return manifest(pool, "gateway.networking.k8s.io/v1", "HTTPRoute", pool.name, PICKER, spec=spec)


def _rewritten(prefix: str) -> str | None:
    """What engines know in place of a prefix that is the gateway's alone: `/demo/v1` is their `/v1`, `/demo` their `/`.

    None for what engines have themselves.
    """
    plain = prefix.rstrip("/")
    if not plain or plain.split("/")[1] in _ENGINES_OWN:
        return None
    return "/v1" if plain.endswith("/v1") else "/"


def _backends(pool: Pool) -> list[Manifest]:
    """The pool, and the one that gets a share of its requests."""
    canary = pool.spec.routing.gateway.http_route.canary
    own: Manifest = {"group": GIE_GROUP, "kind": "InferencePool", "name": pool.name}
    if canary is None:
        return [own]
    return [own | {"weight": 100 - canary.percent}, own | {"name": canary.pool, "weight": canary.percent}]
