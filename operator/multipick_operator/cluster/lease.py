"""Leader election by a Lease: of several operators, one acts.

The protocol of client-go: a holder renews well within `leaseDurationSeconds`; others take over when the record has not
changed for that long *on their own clock*, so that clocks need not agree. All writes carry the resourceVersion that was
read, so that the API server lets one of two racing candidates win. (The package's own `leaderelection` never gives a
lease back, and its calls have no deadline.)
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from multipick_operator.children import Ref
from multipick_operator.children.names import Manifest
from multipick_operator.cluster.client import UNREACHABLE, ApiError, Kube

log = logging.getLogger(__name__)

CANDIDATE_S = 0.5  # how often those that wait look: so long nobody acts after a holder has let go


class Lease:
    """One candidate.

    Invariant: `left_s` is above zero only while nobody else can hold the lease: counted from before the last renewal
    that succeeded was asked for.
    """

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
        self._ref = Ref("coordination.k8s.io/v1", "Lease", name)
        self._identity = identity
        self._duration_s = duration_s
        self._clock = clock
        self._seen: tuple[str, float] | None = None  # somebody's record and when we first saw it
        self._renewed = float("-inf")
        self._mine: Manifest | None = None  # as last written
        self.trouble: str | None = None  # why the last call failed

    @property
    def left_s(self) -> float:
        """Seconds for which nobody else can act: what is begun must have ended by then."""
        return max(0.0, self._renewed + self._duration_s - self._clock())

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        while not await self._try():
            await asyncio.sleep(min(CANDIDATE_S, self._duration_s / 5))

    async def keep(self) -> None:
        """Renew; returns when the lease is lost: a third of its duration before anybody else may take it."""
        while True:
            await asyncio.sleep(self._duration_s / 5)
            if not await self._try() and self.left_s < self._duration_s / 3:
                self._renewed = float("-inf")
                return

    async def release(self) -> None:
        """Let the next candidate in at once, if we can; else it waits until the lease has run out."""
        if not self.left_s or self._mine is None:
            return
        mine, self._mine = self._mine, None
        self._renewed = float("-inf")
        try:
            await self._api.replace(self._record("", mine), timeout_s=self._call_s)
        except (ApiError, *UNREACHABLE) as error:
            log.warning("lease not released", extra={"why": str(error)})

    @property
    def _call_s(self) -> float:
        """Two calls that hang leave time for a third before the lease is lost."""
        return self._duration_s / 5

    async def _try(self) -> bool:
        """Take or renew. False where somebody else holds it, or the API server can't be asked."""
        asked = self._clock()
        try:
            taken = await self._take()
        except ApiError as error:
            if error.status in (404, 409) and self._mine is not None:  # somebody wrote into it: look who holds it
                self._mine = None
                return await self._try()
            self._note(error)
            return False
        except UNREACHABLE as error:
            self._note(error)
            return False
        self.trouble = None
        if taken is None:
            self._renewed = float("-inf")
            return False
        self._mine, self._renewed = taken, asked
        return True

    async def _take(self) -> Manifest | None:
        current = self._mine or await self._api.get(self._ref, self._namespace, timeout_s=self._call_s)
        if current is None:
            return await self._api.create(self._record(self._identity, None), timeout_s=self._call_s)
        if not self._is_free(current):
            return None
        return await self._api.replace(self._record(self._identity, current), timeout_s=self._call_s)

    def _is_free(self, lease: Manifest) -> bool:
        holder = lease["spec"].get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        patience_s: float = lease["spec"].get("leaseDurationSeconds", self._duration_s)
        return self._clock() - self._seen[1] > patience_s

    def _note(self, error: Exception) -> None:
        self.trouble = str(error) or type(error).__name__
        log.warning("lease not renewed", extra={"why": self.trouble})

    def _record(self, holder: str, current: Manifest | None) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = current["spec"] if current else {}
        changed = old.get("holderIdentity") != holder
        meta = {"name": self._ref.name, "namespace": self._namespace}
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
