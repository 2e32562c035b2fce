"""Looks at each engine's `/metrics` again and again: its gauges, and whether it can be reached at all.

vLLM opens its HTTP port when the engine is ready, and refuses connections before, so a page means ready. A refused
connection means not ready at once; a slow page only after several, since a busy engine may answer late.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from multipick_epp.engines import EngineClient, Unanswered, Why
from multipick_epp.engines.bounds import METRICS_S
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import unexplained
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint, Load

log = logging.getLogger(__name__)

SLOW_PAGES = 3  # pages in a row that may be late before the endpoint counts as not ready
LOOKED_S = METRICS_S + 1.0  # for a first look at all endpoints


class Monitor:
    """One task an endpoint of the registry. `readiness`: whether a page, or its lack, decides if an endpoint is ready.

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
        readiness: bool = True,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._supervisor = supervisor
        self._load = load
        self._tokens_a_request = tokens_a_request
        self._interval_s = interval_s
        self._path = path
        self._readiness = readiness
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._looks: dict[Endpoint, asyncio.Event] = {}  # of each task; set after its first look

    async def start(self) -> None:
        """Watch the registry's endpoints, and those that come later."""
        self._registry.on_change(lambda _: self._follow())
        self._follow()

    async def looked(self) -> None:
        """Return when each of the registry's endpoints was looked at; after LOOKED_S in any case."""
        looks = [asyncio.create_task(look.wait()) for look in self._looks.values()]
        if looks:
            _, late = await asyncio.wait(looks, timeout=LOOKED_S)
            for look in late:
                look.cancel()

    async def close(self) -> None:
        """End all tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self) -> None:
        endpoints = set(self._registry.all())
        for endpoint in self._tasks.keys() - endpoints:
            self._tasks.pop(endpoint).cancel()
            self._looks.pop(endpoint).set()
        for endpoint in endpoints - self._tasks.keys():
            self._looks[endpoint] = asyncio.Event()
            self._tasks[endpoint] = self._supervisor.keep("monitor", partial(self._watch, endpoint), endpoint)

    async def _watch(self, endpoint: Endpoint) -> None:
        slow = 0
        while True:
            try:
                page = await self._engines.metrics(endpoint, self._path)
                if not isinstance(page, Unanswered):
                    slow = 0
                    self._arrived(endpoint, page)
                elif page.why is not Why.SLOW:
                    self._mark(endpoint, False, str(page))
                else:
                    slow += 1
                    if slow >= SLOW_PAGES:
                        self._mark(endpoint, False, "its metrics are late")
            finally:
                if look := self._looks.get(endpoint):
                    look.set()
            await asyncio.sleep(self._interval_s)

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
