"""Endpoints from a watch of the pool's pods."""

from collections.abc import Mapping

import msgspec

from multipick_epp.config import Kubernetes
from multipick_epp.pods.object_watch import Connect, ObjectWatch, Seen
from multipick_epp.pods.pod_objects import PodView, read, view
from multipick_epp.pods.registry import Registry


class PodWatch:
    """Keeps a registry true to the pool's pods."""

    def __init__(self, config: Kubernetes, registry: Registry, connect: Connect) -> None:
        """`connect` makes a client of the API server."""
        self._registry = registry
        self._config = config
        selector = ",".join(f"{name}={value}" for name, value in sorted(config.selector.items()))
        path = f"/api/v1/namespaces/{config.namespace}/pods"
        self._watch = ObjectWatch("pod", path, {"labelSelector": selector}, connect, self._read, self._tell)

    @property
    def outage(self) -> str | None:
        """Why the pods are not watched now."""
        return self._watch.outage

    @property
    def passed_over(self) -> int:
        """Objects that were no pods."""
        return self._watch.passed_over

    async def follow(self) -> None:
        """For ever; see `ObjectWatch.follow`."""
        await self._watch.follow()

    def _read(self, data: msgspec.Raw) -> Seen[PodView] | None:
        pod = read(data)
        if pod is None:
            return None
        seen = view(pod, self._config.ports, self._config.container)
        return Seen(pod.metadata.uid, pod.metadata.resource_version, seen)

    def _tell(self, pods: Mapping[str, PodView]) -> None:
        # Ready pods last: of an address that a new pod was given while the old one is still listed, the new one counts.
        views = sorted(pods.values(), key=lambda each: each.ready)
        told = {pod.endpoint: (pod, each.ready) for each in views for pod in each.endpoints}
        self._registry.set([pod for pod, _ in told.values()])
        for address, (_, ready) in told.items():
            self._registry.mark(address, ready)
