"""Follows the events of all endpoints that this replica owns, and keeps the index to them.

What changed is told at most every FLUSH_S, all endpoints together; see `telling`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import aiohttp
import zmq

from multipick_epp.events.discover import Feed, Ports
from multipick_epp.events.followed import FeedStats, Followed
from multipick_epp.events.telling import tell
from multipick_epp.state.protocol import Index
from multipick_epp.types import BlockKey, Endpoint

log = logging.getLogger(__name__)

FLUSH_S = 0.005
TICK_S = 0.25  # between two looks at what nobody announces: ownership, retries


class Ingest:
    """Runs until closed. Invariant: `_followed` has exactly the endpoints of `_feeds` that the index says we own."""

    def __init__(self, index: Index, root: Callable[[str | None], BlockKey], ports: Ports) -> None:
        """`root` gives the parent key of a prompt's first block by LoRA adapter; the picker has to use the same."""
        self._index = index
        self._root = root
        self._ports = ports
        self._feeds: dict[Endpoint, Feed] = {}
        self._followed: dict[Endpoint, Followed] = {}
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
        tasks = [followed.task for followed in self._followed.values() if followed.task]
        self._own(())
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session:
            await self._session.close()
        if self._context:
            self._context.destroy(linger=0)

    def follow(self, feeds: Iterable[Feed]) -> None:
        """The pool consists of these endpoints from now on. Those that left it are dropped from the index."""
        self._feeds = {feed.endpoint: feed for feed in feeds}
        self._owned_s = 0.0
        self._changed.set()

    def stats(self) -> Sequence[FeedStats]:
        """Of each endpoint that is followed."""
        return [followed.stats() for followed in self._followed.values()]

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
                    gone = self._followed.keys() - self._feeds.keys()
                    self._own(self._index.owned(list(self._feeds)))
                    for endpoint in gone:  # after the last write to it
                        await self._index.drop(endpoint)
                due = [followed for followed in self._followed.values() if followed.touched or followed.stale]
                await tell(self._index, due, loop.time())
            except Exception:
                log.exception("ingest failed")
                for followed in self._followed.values():
                    if followed.incarnation:
                        followed.incarnation.failed(loop.time())

    def _lost(self, endpoint: Endpoint) -> None:
        followed = self._followed.get(endpoint)
        if followed and followed.incarnation:
            followed.incarnation.stale = True
            self._changed.set()

    def _own(self, endpoints: Sequence[Endpoint]) -> None:
        """Follow exactly these."""
        wanted = set(endpoints)
        for endpoint, followed in list(self._followed.items()):
            feed = self._feeds.get(endpoint) if endpoint in wanted else None
            if feed is None or replace(feed, started_ms=None) != replace(followed.feed, started_ms=None):
                self._followed.pop(endpoint).close()
            elif feed != followed.feed:
                followed.feed = feed
                if feed.started_ms is not None:
                    followed.container_started(feed.started_ms)
        assert self._context is not None
        assert self._session is not None
        for endpoint in wanted - self._followed.keys():
            if feed := self._feeds.get(endpoint):
                followed = self._followed[endpoint] = Followed(feed, self._root, self._changed.set)
                followed.start(self._context, self._session, self._ports)
