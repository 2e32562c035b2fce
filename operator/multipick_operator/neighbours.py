"""What two pools get into each other's way with: the same pods, the same place in a gateway. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

from multipick_operator.api.pool import Pool, SpecError, pool_of
from multipick_operator.api.routing import HttpRoute
from multipick_operator.children.names import POOL_LABEL, Manifest, endpoint_labels

Place = tuple[Any, ...]  # Gateway, listener, host, path, headers


def sharing(pool: Pool, pods: Sequence[Manifest], others: Sequence[Manifest]) -> list[str]:
    """Pools of the namespace that count some of these pods among their own."""
    labels = [pod["metadata"].get("labels", {}) for pod in pods]
    found = {str(one.get(POOL_LABEL, pool.name)) for one in labels}
    beside = (one for one in others if one["metadata"]["namespace"] == pool.namespace)
    for other in _pools(one for one in beside if one["spec"].get("existingPods")):
        if any(endpoint_labels(other).items() <= one.items() for one in labels):
            found.add(other.name)
    return sorted(found - {pool.name})


def shadowing(pool: Pool, made: str, others: Sequence[Manifest]) -> str | None:
    """The pool (namespace/name) whose route gets this one's requests: it asks for the same, and is older.

    `made`: when the pool was. Gateways decide so, and by the name between two of one second.
    """
    route = pool.spec.routing.gateway.http_route
    if not route.create:
        return None
    places = set(_places(pool, route))
    mine = (made, pool.namespace, pool.name)
    older = [one for one in others if _has_route(one) and _age(one) < mine]
    for other in _pools(sorted(older, key=_age)):
        if places & set(_places(other, other.spec.routing.gateway.http_route)):
            return f"{other.namespace}/{other.name}"
    return None


def _places(pool: Pool, route: HttpRoute) -> Iterator[Place]:
    headers = tuple(sorted((one.name.lower(), one.value) for one in route.headers))
    for parent, host in product(route.parent_refs, route.hostnames or ("*",)):
        gateway = (parent.namespace or pool.namespace, parent.name, parent.section_name, parent.port)
        yield (*gateway, host.lower(), route.path_prefix.rstrip("/"), headers)


def _pools(manifests: Iterable[Manifest]) -> Iterator[Pool]:
    """Those that can be read."""
    for one in manifests:
        try:
            yield pool_of(one)
        except SpecError:
            continue


def _has_route(manifest: Manifest) -> bool:
    route = manifest["spec"].get("routing", {}).get("gateway", {}).get("httpRoute", {})
    return bool(route.get("create"))


def _age(manifest: Manifest) -> tuple[str, str, str]:
    """The older is the lesser."""
    meta = manifest["metadata"]
    return meta.get("creationTimestamp", ""), meta["namespace"], meta["name"]
