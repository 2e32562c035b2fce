"""Whether to call this picker: the state behind gRPC's health service, which gateways, kubelets and load balancers ask.

Names: the Endpoint Picker Protocol's `liveness`, `readiness` and the ext_proc service; `inference-extension` is what
the probes of the reference picker ask; "" is the whole process.
"""

import asyncio
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import Final

EXT_PROC_SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
_READINESS: Final = frozenset({"", "readiness", "inference-extension", EXT_PROC_SERVICE})


class ServingStatus(IntEnum):
    """`grpc.health.v1.HealthCheckResponse.ServingStatus`."""

    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health:
    """Not ready when made; ready when told; never again once draining."""

    def __init__(self) -> None:
        self._ready = False
        self._draining = False
        self._changed = asyncio.Event()  # set once, at the next change

    def ready(self, ready: bool) -> None:
        """The picker can decide, or can't."""
        self._ready = ready
        self._announce()

    def drain(self) -> None:
        """The picker is going away: not ready from now on."""
        self._draining = True
        self._announce()

    def status(self, service: str) -> ServingStatus:
        """Of one of the names above; SERVICE_UNKNOWN for another."""
        if service == "liveness":
            return ServingStatus.SERVING
        if service not in _READINESS:
            return ServingStatus.SERVICE_UNKNOWN
        return ServingStatus.SERVING if self._ready and not self._draining else ServingStatus.NOT_SERVING

    async def watch(self, service: str) -> AsyncIterator[ServingStatus]:
        """The status now, and each that differs from the one before."""
        last: ServingStatus | None = None
        while True:
            changed, status = self._changed, self.status(service)
            if status is not last:
                last = status
                yield status
            else:
                await changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
