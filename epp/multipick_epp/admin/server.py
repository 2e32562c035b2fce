"""The picker's own HTTP port: metrics for Prometheus, endpoints for people and `multipick demo`'s live table."""

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

from multipick_epp.admin.port import AdminPort, healthy, json_page, metrics_page
from multipick_epp.admin.status import PickerStatus
from multipick_epp.decision.explained import Explained
from multipick_epp.pods.registry import Registry
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.protocol import State
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import Endpoint


class EndpointRow(msgspec.Struct, frozen=True):
    """One endpoint as `GET /endpoints` shows it."""

    endpoint: Endpoint
    ready: bool
    in_flight: int  # requests
    queued_tokens: int
    unexplained_in_flight: int
    requests_total: int  # requests this picker sent there
    prompt_tokens_total: int  # of those requests
    hit_tokens_total: int  # of those tokens, predicted as resident
    mode: str


class CacheRow(msgspec.Struct, frozen=True):
    """One cache of an endpoint as `GET /index/ENDPOINT` shows it."""

    block_size: int  # tokens
    medium: str
    group: int
    blocks: int  # resident, by the engine's events
    digest: str  # hexadecimal; pickers of one pool show the same where they know the same blocks
    expected_blocks: int  # beside these: routed, and not yet told of


class Admin:
    """Serves `/metrics`, `/status`, `/endpoints`, `/index/ENDPOINT`, `/explain/ID` and `/healthz`; from memory only."""

    def __init__(
        self,
        metrics: Metrics,
        registry: Registry,
        state: State,
        index: LocalIndex,
        status: Callable[[], PickerStatus],
        explained: Callable[[str], Explained | None],
    ) -> None:
        self._metrics = metrics
        self._registry = registry
        self._state = state
        self._index = index
        self._status = status
        self._explained = explained
        self._digesting = asyncio.Lock()  # one walk over the index at a time, however many ask
        self._port = AdminPort(
            {
                "/metrics": self._page,
                "/status": self._report,
                "/endpoints": self._endpoints,
                "/index/{endpoint}": self._digest,
                "/explain/{name}": self._explain,
                "/healthz": healthy,
            }
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises RuntimeError where it can't be had."""
        return await self._port.start(host, port)

    async def close(self) -> None:
        """Stop listening."""
        await self._port.close()

    def rows(self) -> list[EndpointRow]:
        """Every endpoint of the pool."""
        rows = []
        for endpoint in self._registry.all():
            state = self._registry.state(endpoint)
            if state is None:
                continue
            load = self._state.load(endpoint)
            rows.append(
                EndpointRow(
                    endpoint,
                    state.ready,
                    load.in_flight,
                    load.queued_tokens,
                    state.unexplained.in_flight,
                    state.sent.requests,
                    state.sent.prompt_tokens,
                    state.sent.hit_tokens,
                    self._registry.mode(endpoint, self._state.mode(endpoint)),
                )
            )
        return rows

    async def _page(self, _: web.Request) -> web.Response:
        for metric in (self._metrics.in_flight, self._metrics.queued_tokens, self._metrics.unexplained_in_flight):
            metric.clear()
        self._metrics.endpoint_ready.clear()
        for row in self.rows():
            self._metrics.in_flight.labels(row.endpoint).set(row.in_flight)
            self._metrics.queued_tokens.labels(row.endpoint).set(row.queued_tokens)
            self._metrics.unexplained_in_flight.labels(row.endpoint).set(row.unexplained_in_flight)
            self._metrics.endpoint_ready.labels(row.endpoint).set(row.ready)
        return metrics_page(self._metrics.page())

    async def _report(self, _: web.Request) -> web.Response:
        return json_page(msgspec.json.encode(self._status()))

    async def _endpoints(self, _: web.Request) -> web.Response:
        return json_page(msgspec.json.encode(self.rows()))

    async def _digest(self, request: web.Request) -> web.Response:
        async with self._digesting:
            digests = await self._index.digest(Endpoint(request.match_info["endpoint"]))
        rows = [
            CacheRow(cache.block_size, cache.medium, cache.group, found.blocks, f"{found.total:015x}", found.expected)
            for cache, found in digests.items()
        ]
        return json_page(msgspec.json.encode(rows))

    async def _explain(self, request: web.Request) -> web.Response:
        explained = self._explained(request.match_info["name"])
        if explained is None:
            raise web.HTTPNotFound(text="no such request among this picker's last decisions\n")
        return json_page(msgspec.json.encode(explained))
