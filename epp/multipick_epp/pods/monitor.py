"""Looks at each engine's `/metrics` again and again: its gauges, and whether it can be reached at all.

vLLM opens its HTTP port when the engine is ready, and refuses connections before, so a page means ready. A refused
connection means not ready at once; a slow page only after several, since a busy engine may answer late.
"""

import asyncio
import logging
from collections.abc import Callable

import aiohttp

from multipick_epp.engines.answers import read_at_most
from multipick_epp.engines.metrics_page import MAX_PAGE_BYTES, Gauges, parse
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import unexplained
from multipick_epp.types import Endpoint, Load

log = logging.getLogger(__name__)

SLOW_PAGES = 3  # pages in a row that may be late before the endpoint counts as not ready
PAGE_TIMEOUT_S = 2.0


class Monitor:
    """One task an endpoint of the registry. `readiness`: whether a page, or its lack, decides if an endpoint is ready.

    It is off where Kubernetes says which pods are ready.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[Endpoint], Load],
        tokens_a_request: Callable[[], float],
        interval_s: float,
        path: str = "/metrics",
        readiness: bool = True,
    ) -> None:
        self._registry = registry
        self._load = load
        self._tokens_a_request = tokens_a_request
        self._interval_s = interval_s
        self._path = path
        self._readiness = readiness
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._looks: dict[Endpoint, asyncio.Event] = {}  # of each task; set after its first look
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Watch the registry's endpoints, and those that come later."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PAGE_TIMEOUT_S), connector=aiohttp.TCPConnector(limit=0)
        )
        self._registry.on_change(lambda _: self._follow())
        self._follow()

    async def looked(self) -> None:
        """Return when each of the registry's endpoints was looked at: after PAGE_TIMEOUT_S at most."""
        for look in list(self._looks.values()):
            await look.wait()

    async def close(self) -> None:
        """End all tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            await self._session.close()

    def _follow(self) -> None:
        endpoints = set(self._registry.all())
        for endpoint in self._tasks.keys() - endpoints:
            self._tasks.pop(endpoint).cancel()
            self._looks.pop(endpoint).set()
        for endpoint in endpoints - self._tasks.keys():
            self._looks[endpoint] = asyncio.Event()
            self._tasks[endpoint] = asyncio.create_task(self._watch(endpoint), name=f"monitor {endpoint}")

    async def _watch(self, endpoint: Endpoint) -> None:
        slow = 0
        while True:
            try:
                gauges = await self._scrape(endpoint)
                slow = 0
                self._arrived(endpoint, gauges)
            except TimeoutError:
                slow += 1
                if slow >= SLOW_PAGES:
                    self._mark(endpoint, False, "its metrics are late")
            except (aiohttp.ClientError, OSError) as error:
                self._mark(endpoint, False, str(error) or type(error).__name__)
            if look := self._looks.get(endpoint):
                look.set()
            await asyncio.sleep(self._interval_s)

    async def _scrape(self, endpoint: Endpoint) -> Gauges:
        assert self._session is not None
        async with self._session.get(f"http://{endpoint}{self._path}") as response:
            response.raise_for_status()
            page = await read_at_most(response, MAX_PAGE_BYTES)
        if page is None:
            raise aiohttp.ClientPayloadError(f"metrics page larger than {MAX_PAGE_BYTES} bytes")
        return parse(page)

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
