"""Follows the events of all endpoints that this replica owns, and keeps the index to them.

What changed is told at most every FLUSH_S, all endpoints together; see `upload`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import aiohttp
import zmq

from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed import Feed, FeedStats
from multipick_epp.events.upload import upload
from multipick_epp.state.protocol import Index
from multipick_epp.types import BlockKey, Endpoint

log = logging.getLogger(__name__)

FLUSH_S = 0.005
TICK_S = 0.25  # between two looks at what nobody announces: ownership, retries


class Ingest:
    """Runs until closed. Invariant: `_feeds` has exactly the endpoints of `_specs` that the index says we own."""

    def __init__(self, index: Index, root: Callable[[str | None], BlockKey], ports: Ports) -> None:
        """`root` gives the parent key of a prompt's first block by LoRA adapter; the picker has to use the same."""
        self._index = index
        self._root = root
        self._ports = ports
        self._specs: dict[Endpoint, FeedSpec] = {}
        self._feeds: dict[Endpoint, Feed] = {}
        self._changed = asyncio.Event()
        self._owned_s = 0.0  # loop time at which ownership is looked at again
        self._task: asyncio.Task[None] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begin to follow, in the background. The index has been started before."""
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, min(65536, self._context.get(zmq.SOCKET_LIMIT)))
        self._session = aiohttp.ClientSession()
        self._index.on_lost(self._lost)
        self._task = asyncio.create_task(self._run(), name="ingest")

    async def close(self) -> None:
        """Stop following. The index keeps what it knows."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        tasks = [feed.task for feed in self._feeds.values() if feed.task]
        self._own(())
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            await self._session.close()
        if self._context:
            self._context.destroy(linger=0)

    def follow(self, specs: Iterable[FeedSpec]) -> None:
        """The pool consists of these endpoints from now on. Those that left it are dropped from the index."""
        self._specs = {spec.endpoint: spec for spec in specs}
        self._owned_s = 0.0
        self._changed.set()

    def stats(self) -> Sequence[FeedStats]:
        """Of each endpoint that is followed."""
        return [feed.stats() for feed in self._feeds.values()]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._changed.wait()
                    await asyncio.sleep(FLUSH_S)
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                if loop.time() >= self._owned_s:
                    self._owned_s = loop.time() + TICK_S
                    gone = self._feeds.keys() - self._specs.keys()
                    self._own(self._index.owned(list(self._specs)))
                    for endpoint in gone:  # after the last write to it
                        await self._index.drop(endpoint)
                due = [feed for feed in self._feeds.values() if feed.touched or feed.stale]
                await upload(self._index, due, loop.time())
            except Exception:
                log.exception("ingest failed")
                for feed in self._feeds.values():
                    if feed.incarnation:
                        feed.incarnation.failed(loop.time())

    def _lost(self, endpoint: Endpoint) -> None:
        feed = self._feeds.get(endpoint)
        if feed and feed.incarnation:
            feed.incarnation.stale = True
            self._changed.set()

    def _own(self, endpoints: Sequence[Endpoint]) -> None:
        """Follow exactly these."""
        wanted = set(endpoints)
        for endpoint, feed in list(self._feeds.items()):
            spec = self._specs.get(endpoint) if endpoint in wanted else None
            if spec is None or replace(spec, started_ms=None) != replace(feed.spec, started_ms=None):
                self._feeds.pop(endpoint).close()
            elif spec != feed.spec:
                feed.spec = spec
                if spec.started_ms is not None:
                    feed.container_started(spec.started_ms)
        assert self._context is not None
        assert self._session is not None
        for endpoint in wanted - self._feeds.keys():
            if spec := self._specs.get(endpoint):
                feed = self._feeds[endpoint] = Feed(spec, self._root, self._changed.set)
                feed.start(self._context, self._session, self._ports)
