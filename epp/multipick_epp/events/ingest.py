"""Follows the events of all endpoints that this replica owns, and keeps the index to them.

What changed is told at most every FLUSH_S; see `upload`. Every endpoint has tasks of its own, for its subscription and
for telling the index, so that none waits for another's.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import zmq

from multipick_epp.engines import EngineClient
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed import MAX_ENTRIES, Common, Feed
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.upload import upload
from multipick_epp.state.protocol import Index
from multipick_epp.tasks.descriptors import allow_descriptors
from multipick_epp.types import BlockKey, Endpoint

log = logging.getLogger(__name__)

FLUSH_S = 0.005
TICK_S = 0.25  # between two looks at what nobody announces: ownership, retries, memory
REST_S = 1.0
"""An endpoint that somebody else took over is not taken back before both had the time to hear of each other."""
LEAVE_S = 1.0
"""So long may it take to tell the last of an endpoint that is left to another."""
HAND_OVER_S = 4.0
"""Who ends follows on until others have taken over, so long at most: else the events of that time are nobody's. Mostly
it takes half a second; on a machine that is busy with the same elsewhere, some.
"""
ASK_S = 0.1  # between two looks whether they have
MAX_ALL_ENTRIES = 1 << 25
"""Of all endpoints together, see `Tracker.entries`: 16 million blocks, 4 GB. Beyond, the largest one starts afresh."""
TAKE_AT_ONCE = 2
"""Endpoints that are taken over at one time. The others' owners follow on meanwhile, if they live."""
WHOLE_AT_ONCE = 4
"""Endpoints of which the index is told everything at one time: each costs a copy of all its keys."""


class Ingest:
    """Runs until closed. Invariant: `_feeds` has the endpoints of `_specs` that the index says we own, unless they are
    among the `_ending`, or rest; and those that were ours, until somebody else has taken them over.
    """

    def __init__(
        self, index: Index, root: Callable[[str | None], BlockKey], ports: Ports, media: Collection[str] = ()
    ) -> None:
        """`root` gives the parent key of a prompt's first block by LoRA adapter; the picker has to use the same.

        `media` are followed beside the GPU, in capitals.
        """
        self._index = index
        self._root = root
        self._ports = ports
        self._media = frozenset(media)
        self._specs: dict[Endpoint, FeedSpec] = {}
        self._feeds: dict[Endpoint, Feed] = {}
        self._ending: dict[Endpoint, asyncio.Task[None]] = {}  # left to others, or dropped
        self._rests_until: dict[Endpoint, float] = {}  # loop time; fenced off
        self._changed = asyncio.Event()
        self._taking = asyncio.Semaphore(TAKE_AT_ONCE)
        self._whole = asyncio.Semaphore(WHOLE_AT_ONCE)
        self._owned_s = 0.0  # loop time at which ownership is looked at again
        self._task: asyncio.Task[None] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._engines = EngineClient()

    async def start(self) -> None:
        """Begin to follow, in the background. The index has been started before."""
        allow_descriptors()  # an endpoint needs up to 15
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, min(65536, self._context.get(zmq.SOCKET_LIMIT)))
        await self._engines.start()
        self._index.on_lost(self._lost)
        self._task = asyncio.create_task(self._run(), name="ingest")

    async def close(self) -> None:
        """Let others take over, tell the last, and stop following. The index keeps what it knows."""
        if self._task:
            with suppress(TimeoutError):
                async with asyncio.timeout(HAND_OVER_S):
                    await self._hand_over()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for endpoint in list(self._feeds):
            self._end(self._feeds.pop(endpoint), self._leave)
        ending = list(self._ending.values())
        if ending:
            _, late = await asyncio.wait(ending, timeout=LEAVE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        await self._engines.close()
        if self._context:
            self._context.destroy(linger=0)

    async def _hand_over(self) -> None:
        """Returns when all endpoints have another owner."""
        if not await self._index.retire():
            return
        while self._feeds:
            self._owned_s = 0.0
            self._changed.set()
            await asyncio.sleep(ASK_S)

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
        wait_s = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
                    await asyncio.sleep(FLUSH_S)
            self._changed.clear()
            if loop.time() >= self._owned_s:
                self._owned_s = loop.time() + TICK_S
                try:
                    self._look()
                except Exception:
                    log.exception("endpoints not looked at")
            wait_s = self._tell(loop.time())

    def _look(self) -> None:
        """At what nobody announces."""
        for endpoint in self._feeds.keys() - self._specs.keys():
            self._end(self._feeds.pop(endpoint), self._drop)
        self._own(self._index.owned(list(self._specs)))
        now_s = asyncio.get_running_loop().time()
        for feed in self._feeds.values():
            feed.look(now_s)
        entries = {feed: feed.entries for feed in self._feeds.values()}
        for feed, held in entries.items():
            if held > MAX_ENTRIES:
                feed.start_afresh(f"more than {MAX_ENTRIES} blocks and names of blocks")
                entries[feed] = 0
        if sum(entries.values()) > MAX_ALL_ENTRIES:
            largest = max(entries, key=entries.__getitem__)
            largest.start_afresh(f"more than {MAX_ALL_ENTRIES} blocks and names of blocks together with the other pods")

    def _tell(self, now_s: float) -> float:
        """Begin to tell what is due. Returns the seconds until more is."""
        wait_s = TICK_S
        for feed in self._feeds.values():
            due_s = feed.wait_s(now_s)
            if due_s:
                wait_s = min(wait_s, due_s)
            elif due_s is not None:
                feed.telling = asyncio.create_task(self._tell_of(feed), name=f"tell of {feed.spec.endpoint}")
        return wait_s

    async def _tell_of(self, feed: Feed) -> None:
        try:
            async with AsyncExitStack() as stack:
                if feed.stale:
                    await stack.enter_async_context(self._whole)
                await upload(self._index, feed, asyncio.get_running_loop().time())
        finally:
            feed.telling = None
            if feed.touched:
                self._changed.set()

    def _end(self, feed: Feed, how: Callable[[Feed], Awaitable[None]]) -> None:
        endpoint = feed.spec.endpoint
        self._ending[endpoint] = asyncio.create_task(self._ended(feed, how), name=f"end of {endpoint}")

    async def _ended(self, feed: Feed, how: Callable[[Feed], Awaitable[None]]) -> None:
        try:
            await how(feed)
        except Exception:
            log.exception("endpoint not ended", extra={"endpoint": feed.spec.endpoint})
        finally:
            feed.close()
            await asyncio.gather(*feed.tasks, return_exceptions=True)
            del self._ending[feed.spec.endpoint]
            self._owned_s = 0.0

    async def _drop(self, feed: Feed) -> None:
        """After the last write to it."""
        feed.close()
        await asyncio.gather(*feed.tasks, return_exceptions=True)
        await self._index.drop(feed.spec.endpoint)

    async def _leave(self, feed: Feed) -> None:
        """To another owner, who goes on from the last that we tell."""
        feed.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                if feed.telling:
                    await asyncio.wait([feed.telling])
                if not feed.fenced_off and not feed.stale:
                    await upload(self._index, feed, math.inf)

    def _lost(self, endpoint: Endpoint) -> None:
        """The index lacks something, or somebody else has taken the endpoint over: telling it anew shows which."""
        feed = self._feeds.get(endpoint)
        if feed and feed.incarnation:
            feed.incarnation.stale = True
            feed.incarnation.retry_s = feed.incarnation.next_s = feed.incarnation.pause_s = 0.0
            feed.mode_uploaded = None
            self._changed.set()

    def _own(self, endpoints: Sequence[Endpoint]) -> None:
        """Follow these; and others that we follow only until their next owner has taken them over.

        Whoever that is may be slow, rest, or not know yet: what comes meanwhile would be nobody's.
        """
        now_s = asyncio.get_running_loop().time()
        wanted = set(endpoints)
        self._rests_until = {each: until for each, until in self._rests_until.items() if until > now_s}
        for endpoint, feed in list(self._feeds.items()):
            spec = self._specs[endpoint]
            if feed.fenced_off:
                self._rests_until[endpoint] = now_s + REST_S
                log.info("endpoint left", extra={"endpoint": endpoint, "why": "somebody else has taken it over"})
            is_elsewhere = replace(spec, started_ms=None) != replace(feed.spec, started_ms=None)
            nothing_known = endpoint not in wanted and feed.incarnation is None and not feed.taking
            if feed.fenced_off or is_elsewhere or nothing_known:
                self._end(self._feeds.pop(endpoint), self._leave)
                continue
            if spec != feed.spec:
                feed.changed(spec)
            if endpoint not in wanted:
                feed.mode_uploaded = None  # said again, it tells whether the endpoint is still ours
        assert self._context is not None
        common = Common(self._index, self._context, self._engines, self._ports, self._taking)
        for endpoint in wanted - self._feeds.keys() - self._ending.keys() - self._rests_until.keys():
            feed = Feed(self._specs[endpoint], self._root, self._changed.set, media=self._media)
            self._feeds[endpoint] = feed
            feed.start(common)
