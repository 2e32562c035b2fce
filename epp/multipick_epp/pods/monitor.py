"""Looks at each engine's `/metrics` again and again: its gauges, and whether it can be reached at all.

vLLM opens its HTTP port when the engine is ready, and refuses connections before, so a page means ready. A refused
connection means not ready at once; a slow page only after several, since a busy engine may answer late.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

from multipick_epp.engines import MetricsLooks, Unanswered, Why
from multipick_epp.engines.bounds import METRICS_S
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.pods.each import EachEngine
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import unexplained
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.tasks.together import Together
from multipick_epp.types import Endpoint, Load

log = logging.getLogger(__name__)

SLOW_PAGES = 3  # pages in a row that may be late before the endpoint counts as not ready
UNSEEN_PAGES = 3  # that may be missed before the last one says nothing any more
TOGETHER = 8
"""Looks in one moment: half the CPU of as many one by one, and requests wait a millisecond at most."""
LOOKED_S = METRICS_S + 1.0  # for a first look at all endpoints


class Monitor:
    """Looks at the registry's engines. `readiness`: whether a page, or its lack, decides if an engine is ready.

    It is off where Kubernetes says which pods are ready.
    """

    def __init__(
        self,
        registry: Registry,
        supervisor: Supervisor,
        load: Callable[[Endpoint], Load],
        tokens_a_request: Callable[[], float],
        interval_s: float,
        path: str = "/metrics",
        looked: Callable[[Endpoint, bool], None] = lambda endpoint, reached: None,
        readiness: bool = True,
        arrived: Callable[[Endpoint, Gauges], None] = lambda address, page: None,
    ) -> None:
        """`looked` is told of each look whether the engine could be reached, `arrived` of each page."""
        self._registry = registry
        self._load = load
        self._tokens_a_request = tokens_a_request
        self._interval_s = interval_s
        self._path = path
        self._tell = looked
        self._readiness = readiness
        self._tell_page = arrived
        self._looks: set[Endpoint] = set()  # those that were looked at
        self._looked = asyncio.Event()  # set with each look
        self._pauses = Together(TOGETHER, interval_s / 2)
        self._each = EachEngine(registry, supervisor, "monitor", self._watch)

    def start(self) -> None:
        """Watch the registry's engines, and those that come later."""
        self._each.start()

    async def looked(self) -> None:
        """Return when each of the registry's engines was looked at; after LOOKED_S in any case."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOKED_S):
                while not self._looks.issuperset(self._registry.addresses()):
                    self._looked.clear()
                    await self._looked.wait()

    async def close(self) -> None:
        """End it."""
        await self._each.close()

    async def _watch(self, address: Endpoint) -> None:
        slow = unseen = 0
        # Engines that were found together are not all looked at in the same moment for ever: requests would wait.
        pause_s = random.uniform(0.0, self._interval_s)
        metrics = MetricsLooks(address, self._path)
        try:
            while True:
                page = await metrics.look()
                unseen = unseen + 1 if isinstance(page, Unanswered) else 0
                if unseen >= UNSEEN_PAGES:
                    self._registry.unseen(address)
                if not isinstance(page, Unanswered):
                    slow = 0
                    self._tell(address, True)
                    self._arrived(address, page)
                elif page.why is not Why.SLOW:
                    self._tell(address, page.why is not Why.AWAY)
                    self._mark(address, False, str(page))
                else:
                    slow += 1
                    self._tell(address, False)
                    if slow >= SLOW_PAGES:
                        self._mark(address, False, "its metrics are late")
                self._looks.add(address)
                self._looked.set()
                await self._pauses.sleep(pause_s)
                pause_s = self._interval_s
        finally:
            metrics.close()
            self._looks.discard(address)

    def _arrived(self, address: Endpoint, page: Gauges) -> None:
        self._tell_page(address, page)
        endpoints = self._registry.endpoints_at(address)
        loads = [self._load(endpoint) for endpoint in endpoints]
        # A request may be charged to another rank than its engine took for it: that is no stranger's.
        most = round(page.waiting + page.running) - sum(load.in_flight for load in loads)
        for endpoint, load in zip(endpoints, loads, strict=True):
            state = self._registry.state(endpoint)
            gauges = page if state and len(endpoints) == 1 else page.ranks.get(state.pod.rank) if state else None
            if state and gauges:
                surplus = unexplained(state.unexplained, gauges, load, self._tokens_a_request(), most)
                self._registry.scraped(endpoint, gauges, surplus)
        self._mark(address, not page.asleep, "its engine sleeps" if page.asleep else "its metrics arrived")

    def _mark(self, address: Endpoint, ready: bool, why: str) -> None:
        if self._readiness and self._registry.mark(address, ready):
            log.info("endpoint changed", extra={"endpoint": address, "ready": ready, "why": why})
