"""Leader election by a Lease: of several operators, one acts.

The protocol of client-go: a holder renews well within `leaseDurationSeconds`; others take over when the record has not
changed for that long *on their own clock*, so that clocks need not agree. All writes carry the resourceVersion that was
read, so that the API server lets one of two racing candidates win.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp

from multipick_operator import kube
from multipick_operator.children import Ref
from multipick_operator.children.names import Manifest
from multipick_operator.kube import ApiError, Kube

log = logging.getLogger(__name__)


class Lease:
    """One candidate. Invariant: `held` is true only within `duration_s` of the last renewal that succeeded."""

    def __init__(
        self,
        api: Kube,
        namespace: str,
        name: str,
        identity: str,
        duration_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration_s = duration_s
        self._clock = clock
        self._seen: tuple[str, float] | None = None  # somebody's record and when we first saw it
        self._renewed = float("-inf")

    @property
    def held(self) -> bool:
        """This candidate may act now."""
        return self._clock() - self._renewed < self._duration_s

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while not await self._try():
            await asyncio.sleep(self._duration_s / 5)

    async def keep(self) -> None:
        """Renew; returns when the lease is lost, which it is before anybody else may take it."""
        while True:
            await asyncio.sleep(self._duration_s / 5)
            if not await self._try() and self._clock() - self._renewed > self._duration_s * 2 / 3:
                self._renewed = float("-inf")
                return

    async def release(self) -> None:
        """Let the next candidate in at once."""
        if not self.held:
            return
        self._renewed = float("-inf")
        current = await self._api.find(kube.get(self._ref, self._namespace))
        if current and current["spec"].get("holderIdentity") == self._identity:
            await self._api.send(kube.replace(self._record("", current)))

    async def _try(self) -> bool:
        """Take or renew. False where somebody else holds it, or the API server can't be asked."""
        asked = self._clock()
        try:
            current = await self._api.find(kube.get(self._ref, self._namespace))
            if current is None:
                await self._api.send(kube.create(self._record(self._identity, None)))
            elif self._free(current):
                await self._api.send(kube.replace(self._record(self._identity, current)))
            else:
                return False
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("lease not renewed", extra={"why": str(error)})
            return False
        self._renewed = asked
        return True

    def _free(self, lease: Manifest) -> bool:
        holder = lease["spec"].get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        patience_s: float = lease["spec"].get("leaseDurationSeconds", self._duration_s)
        return self._clock() - self._seen[1] > patience_s

    def _record(self, holder: str, current: Manifest | None) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = current["spec"] if current else {}
        changed = old.get("holderIdentity") != holder
        meta = {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": self._ref.api_version,
            "kind": self._ref.kind,
            "metadata": meta | ({"resourceVersion": current["metadata"]["resourceVersion"]} if current else {}),
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._duration_s)),
                "acquireTime": now if changed else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": old.get("leaseTransitions", 0) + (1 if changed and holder else 0),
            },
        }

    @property
    def _ref(self) -> Ref:
        return Ref("coordination.k8s.io/v1", "Lease", self._name)
