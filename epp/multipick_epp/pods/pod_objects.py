"""A Kubernetes Pod object -> the endpoints it gives, and whether they can serve. No I/O.

Only the fields that matter are read, and each pod by itself: one that is none, or odd, costs nobody but itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

import msgspec

from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.types import Endpoint

ACTIVE_PORTS = "inference.networking.k8s.io/active-ports"
"""Annotation of the Gateway API Inference Extension: of the pool's ports only these are the pod's."""


MAX_RANKS = 8  # of a pod, as in the configuration


class Metadata(msgspec.Struct, rename="camel"):
    """Of a pod, or of a bookmark, which has the version alone."""

    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class _Running(msgspec.Struct, rename="camel"):
    started_at: str | None = None


class _Port(msgspec.Struct, rename="camel"):
    name: str | None = None
    container_port: int = 0


class _Container(msgspec.Struct):
    name: str = ""
    ports: list[_Port] | None = None


class _Spec(msgspec.Struct):
    containers: list[_Container] | None = None


class _ContainerState(msgspec.Struct):
    running: _Running | None = None


class _ContainerStatus(msgspec.Struct):
    name: str = ""
    state: _ContainerState | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class Status(msgspec.Struct, rename="camel"):
    """Of a pod."""

    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    phase: str | None = None
    conditions: list[_Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None


class PodObject(msgspec.Struct):
    """The part of a pod that matters here."""

    metadata: Metadata
    spec: _Spec | None = None
    status: Status | None = None


_pod = msgspec.json.Decoder(PodObject)


@dataclass(frozen=True, slots=True)
class PodView:
    """What one pod gives to the pool."""

    endpoints: Sequence[PodEndpoint]
    ready: bool


def read(data: "bytes | msgspec.Raw") -> PodObject | None:
    """None for what is no pod."""
    try:
        pod = _pod.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return pod if pod.metadata.uid else None


def view(pod: PodObject, ports: Sequence[int], container: str | None) -> PodView | None:
    """The endpoints of one pod: `ports[r]` is the data-parallel rank r's. None for a pod that has or needs no address.

    A pod of the operator's names its ports itself (`http` of the container `engine`, `http-1` of `engine-1`, ...): one
    made before the pool's ports changed keeps its own until it is gone.

    `container` is the engine's, whose start is a new epoch; None takes the latest start of any of the pod's containers.
    A pod with a deletion timestamp is not ready from that moment on: its engine answers new requests with an abort.
    """
    metadata, status = pod.metadata, pod.status or Status()
    host = _host(status.pod_ip)
    if host is None or status.phase in ("Succeeded", "Failed"):
        return None
    started_ms = _started_ms(status.container_statuses or (), container)
    ports = _declared(pod.spec or _Spec(), container) or ports
    active = _active(metadata.annotations or {}, ports)
    endpoints = [
        PodEndpoint(Endpoint(f"{host}:{port}"), started_ms=started_ms, rank=rank)
        for rank, port in enumerate(ports)
        if port in active
    ]
    ready = any(each.type == "Ready" and each.status == "True" for each in status.conditions or ())
    return PodView(endpoints, ready and metadata.deletion_timestamp is None)


def _declared(spec: _Spec, container: str | None) -> list[int]:
    """What the pod itself says, in the order of its ranks; nothing where it says none."""
    named = {
        (each.name, port.name): port.container_port
        for each in spec.containers or ()
        for port in each.ports or ()
        if 0 < port.container_port < 65536
    }
    found: list[int] = []
    while container is not None and len(found) < MAX_RANKS:
        suffix = f"-{len(found)}" if found else ""
        port = named.get((f"{container}{suffix}", f"http{suffix}"))
        if port is None:
            break
        found.append(port)
    return found


def _host(address: str | None) -> str | None:
    """An address as it stands in a URL; None for what is none: it will be dialled."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return None
    return f"[{address}]" if ip.version == 6 else address


def _active(annotations: Mapping[str, str], ports: Sequence[int]) -> set[int]:
    named = annotations.get(ACTIVE_PORTS)
    if named is None:
        return set(ports)
    return {port for port in ports if str(port) in map(str.strip, named.split(","))}


def _started_ms(statuses: Sequence[_ContainerStatus], container: str | None) -> int | None:
    starts = [
        started_ms
        for each in statuses
        if (container is None or each.name == container) and each.state and each.state.running
        if (started_ms := _unix_ms(each.state.running.started_at)) is not None
    ]
    return max(starts, default=None)


def _unix_ms(time: str | None) -> int | None:
    try:
        return max(0, int(datetime.fromisoformat(time or "").timestamp() * 1000)) or None
    except (ValueError, OverflowError):
        return None
