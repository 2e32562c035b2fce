"""Where clients reach a pool: from its route and the listeners that the route is attached to. Pure."""

from collections.abc import Iterator, Sequence

from multipick_operator.api.pool import Pool
from multipick_operator.api.routing import ParentRef
from multipick_operator.children.names import Manifest

_PORTS = {"http": 80, "https": 443}


def url(pool: Pool, gateways: Sequence[Manifest]) -> str:
    """The first address that answers; empty where none is known. The route is taken to be accepted."""
    route = pool.spec.routing.gateway.http_route
    for parent in route.parent_refs:
        for gateway in gateways:
            meta = gateway["metadata"]
            if (meta["name"], meta["namespace"]) != (parent.name, parent.namespace or pool.namespace):
                continue
            for listener in _listeners(gateway, parent):
                scheme = "https" if listener.get("protocol") in ("HTTPS", "TLS") else "http"
                names = [*route.hostnames, listener.get("hostname", ""), *_addresses(gateway)]
                host = next((name for name in names if name and not name.startswith("*")), None)
                if host:
                    port = listener.get("port")
                    return f"{scheme}://{host}{'' if port == _PORTS[scheme] else f':{port}'}{route.path_prefix}"
    return ""


def _listeners(gateway: Manifest, parent: ParentRef) -> Iterator[Manifest]:
    for one in gateway.get("spec", {}).get("listeners", []):
        if parent.section_name in (None, one.get("name")) and parent.port in (None, one.get("port")):
            yield one


def _addresses(gateway: Manifest) -> list[str]:
    return [str(one.get("value", "")) for one in gateway.get("status", {}).get("addresses", [])]
