"""A Kubernetes Pod object -> the endpoints it gives, and whether they can serve. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from multipick_epp.pods.registry import PodEndpoint
from multipick_epp.types import Endpoint

ACTIVE_PORTS = "inference.networking.k8s.io/active-ports"
"""Annotation of the Gateway API Inference Extension: of the pool's ports only these are the pod's."""


@dataclass(frozen=True, slots=True)
class PodView:
    """What one pod gives to the pool."""

    endpoints: Sequence[PodEndpoint]
    ready: bool


def view(pod: Mapping[str, Any], ports: Sequence[int], container: str | None) -> PodView | None:
    """The endpoints of one pod: `ports[r]` is the data-parallel rank r's. None for a pod that has or needs no address.

    `container` is the engine's, whose start is a new epoch; None takes the latest start of any of the pod's containers.
    A pod with a deletion timestamp is not ready from that moment on: its engine answers new requests with an abort.
    """
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    address = status.get("podIP")
    if not address or status.get("phase") in ("Succeeded", "Failed"):
        return None
    host = f"[{address}]" if ":" in address else address
    started_ms = _started_ms(status.get("containerStatuses") or (), container)
    active = _active(metadata.get("annotations") or {}, ports)
    endpoints = [
        PodEndpoint(Endpoint(f"{host}:{port}"), started_ms=started_ms, rank=rank)
        for rank, port in enumerate(ports)
        if port in active
    ]
    conditions = status.get("conditions") or ()
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return PodView(endpoints, ready and "deletionTimestamp" not in metadata)


def _active(annotations: Mapping[str, str], ports: Sequence[int]) -> set[int]:
    named = annotations.get(ACTIVE_PORTS)
    if named is None:
        return set(ports)
    return {int(text) for text in map(str.strip, named.split(",")) if text.isdecimal()} & set(ports)


def _started_ms(statuses: Sequence[Mapping[str, Any]], container: str | None) -> int | None:
    starts = [
        started
        for each in statuses
        if container is None or each.get("name") == container
        if (started := ((each.get("state") or {}).get("running") or {}).get("startedAt"))
    ]
    return max((int(datetime.fromisoformat(start).timestamp() * 1000) for start in starts), default=None)
