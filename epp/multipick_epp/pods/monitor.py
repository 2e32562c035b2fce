"""Looks at each engine's `/metrics` again and again: its gauges, and whether it can be reached at all.

vLLM opens its HTTP port when the engine is ready, and refuses connections before, so a page means ready. A refused
connection means not ready at once; a slow page only after several, since a busy engine may answer late.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.engines.bounds import METRICS_S
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.pods.each import EachEndpoint
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import unexplained
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint, Load

log = logging.getLogger(__name__)

SLOW_PAGES = 3  # pages in a row that may be late before the endpoint counts as not ready
LOOKED_S = METRICS_S + 1.0  # for a first look at all endpoints


class Monitor:
    """Looks at the registry's endpoints. `readiness`: whether a page, or its lack, decides if an endpoint is ready.

    It is off where Kubernetes says which pods are ready.
    """

    def __init__(
        self,
        registry: Registry,
        engines: EngineClient,
        supervisor: Supervisor,
        load: Callable[[Endpoint], Load],
        tokens_a_request: Callable[[], float],
        interval_s: float,
        path: str = "/metrics",
        looked: Callable[[Endpoint, bool], None] = lambda endpoint, reached: None,
        readiness: bool = True,
    ) -> None:
        """`looked` is told of each look whether the engine could be reached."""
        self._registry = registry
        self._engines = engines
        self._load = load
        self._tokens_a_request = tokens_a_request
        self._interval_s = interval_s
        self._path = path
        self._tell = looked
        self._readiness = readiness
        self._looks: set[Endpoint] = set()  # those that were looked at
        self._looked = asyncio.Event()  # set with each look
        self._each = EachEndpoint(registry, supervisor, "monitor", self._watch)

    def start(self) -> None:
        """Watch the registry's endpoints, and those that come later."""
        self._each.start()

    async def looked(self) -> None:
        """Return when each of the registry's endpoints was looked at; after LOOKED_S in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOKED_S):
                while not self._looks.issuperset(self._registry.all()):
                    self._looked.clear()
                    await self._looked.wait()

    async def close(self) -> None:
        """End it."""
        await self._each.close()

    async def _watch(self, endpoint: Endpoint) -> None:
        slow = 0
        try:
            while True:
                page = await self._engines.metrics(endpoint, self._path)
                if not isinstance(page, Unanswered):
                    slow = 0
                    self._tell(endpoint, True)
                    self._arrived(endpoint, page)
                elif page.why is not Why.SLOW:
                    self._tell(endpoint, page.why is not Why.AWAY)
                    self._mark(endpoint, False, str(page))
                else:
                    slow += 1
                    self._tell(endpoint, False)
                    if slow >= SLOW_PAGES:
                        self._mark(endpoint, False, "its metrics are late")
                self._looks.add(endpoint)
                self._looked.set()
                await asyncio.sleep(self._interval_s)
        finally:
            self._looks.discard(endpoint)

    def _arrived(self, endpoint: Endpoint, gauges: Gauges) -> None:
        state = self._registry.state(endpoint)
        if state is None:
            return
        surplus = unexplained(state.unexplained, gauges, self._load(endpoint), self._tokens_a_request())
        self._registry.scraped(endpoint, gauges, surplus)
        self._mark(endpoint, not gauges.asleep, "its engine sleeps" if gauges.asleep else "its metrics arrived")

    def _mark(self, endpoint: Endpoint, ready: bool, why: str) -> None:
        state = self._registry.state(endpoint)
        if not self._readiness or state is None or state.ready == ready:
            return
        self._registry.mark(endpoint, ready)
        log.info("endpoint changed", extra={"endpoint": endpoint, "ready": ready, "why": why})
