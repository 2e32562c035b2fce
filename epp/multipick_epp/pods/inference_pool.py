"""A pool as a Gateway API `InferencePool` says, which others may own: its selector and ports are read and followed.

Kind: `inference.networking.k8s.io/v1`. The picker only reads: its status is the gateways' to write.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from multipick_epp.config import InferencePoolName, Kubernetes
from multipick_epp.pods.kubernetes import PodWatch
from multipick_epp.pods.object_watch import Connect, ObjectWatch, Seen
from multipick_epp.pods.registry import Registry

log = logging.getLogger(__name__)

API: str = "/apis/inference.networking.k8s.io/v1"


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    uid: Annotated[str, Meta(min_length=1)]
    resource_version: str = ""


class _Selector(msgspec.Struct, rename="camel"):
    match_labels: Annotated[dict[str, str], Meta(min_length=1, max_length=64)]


class _Port(msgspec.Struct):
    number: Annotated[int, Meta(ge=1, le=65535)]


class _Spec(msgspec.Struct, rename="camel"):
    selector: _Selector
    target_ports: Annotated[list[_Port], Meta(min_length=1, max_length=8)]


class _Object(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec


_object = msgspec.json.Decoder(_Object)


class InferencePoolWatch:
    """Keeps a registry true to the pods of one InferencePool; while it is not there, there are none."""

    def __init__(self, pool: InferencePoolName, registry: Registry, connect: Connect) -> None:
        """`connect` makes a client of the API server."""
        self._pool = pool
        self._registry = registry
        self._connect = connect
        self._path = f"{API}/namespaces/{pool.namespace}/inferencepools"
        self._watch = ObjectWatch(
            "InferencePool",
            self._path,
            {"fieldSelector": f"metadata.name={pool.name}"},
            connect,
            self._read,
            self._tell,
        )
        self._pods: PodWatch | None = None
        self._wanted: Kubernetes | None = None
        self._changed = asyncio.Event()

    @property
    def outage(self) -> str | None:
        """Why the pool may not be what the registry says."""
        if self._watch.outage is not None:
            return f"{self._path}: {self._watch.outage}"
        if self._wanted is None:
            return f"no InferencePool {self._pool.namespace}/{self._pool.name}"
        return "starting" if self._pods is None else self._pods.outage

    async def follow(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch.follow())
            group.create_task(self._follow_pods())

    async def _follow_pods(self) -> None:
        while True:
            self._changed.clear()
            if self._pods is not None and self._wanted is None:  # it was deleted
                self._registry.set([])
            self._pods = PodWatch(self._wanted, self._registry, self._connect) if self._wanted else None
            following = asyncio.create_task(self._pods.follow()) if self._pods else None
            waiting = asyncio.create_task(self._changed.wait())
            tasks = [task for task in (following, waiting) if task is not None]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a watch of pods ends by a defect only
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _read(self, data: msgspec.Raw) -> Seen[Kubernetes] | None:
        try:
            pool = _object.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if pool.metadata.name != self._pool.name:
            return None
        ports = tuple(dict.fromkeys(port.number for port in pool.spec.target_ports))
        return Seen(
            pool.metadata.uid,
            pool.metadata.resource_version,
            Kubernetes(self._pool.namespace, pool.spec.selector.match_labels, ports, self._pool.container),
        )

    def _tell(self, pools: Mapping[str, Kubernetes]) -> None:
        wanted = list(pools.values())[-1] if pools else None
        if wanted == self._wanted:
            return
        said = None if wanted is None else {"selector": wanted.selector, "ports": wanted.ports}
        log.info("the pool is another now", extra={"pool": self._pool.name, "says": said})
        self._wanted = wanted
        self._changed.set()
