"""One endpoint whose events this process follows: from its addresses to what the index has to be told."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import zmq

from multipick_epp.engines import EngineClient
from multipick_epp.events.decode import UndecodableBatch, decode
from multipick_epp.events.discover import Addresses, FeedSpec, NoEvents, Ports, Unreachable, discover
from multipick_epp.events.sequence import Begin, Lost, Take
from multipick_epp.events.source import Source
from multipick_epp.events.tracker import Tracker
from multipick_epp.types import BlockKey, Endpoint, Mode

log = logging.getLogger(__name__)

MAX_PENDING = 1 << 18  # operations; beyond, the index is told everything anew instead
MAX_ENTRIES = 1 << 22
"""Of one endpoint, see `Tracker.entries`: two million blocks, 600 MB. Beyond, what is known of it starts afresh."""
_RETRY_S = (0.5, 10.0)  # first and longest pause before an engine is asked for its ports again
_PAUSE_S = (0.25, 5.0)  # first and longest pause before the index is told everything again
_FARTHEST_AHEAD_MS = 1 << 40
_WHY_CHARS = 200
_LOG_S = 10.0  # between two warnings about one endpoint


@dataclass(frozen=True, slots=True)
class FeedStats:
    """One endpoint's feed now, and totals since this process follows it."""

    endpoint: Endpoint
    mode: Mode | None  # None: nothing is known yet
    connected: bool
    blocks: int  # resident, over all caches
    waiting_blocks: int  # stored, but their parent is unknown
    unplaced_blocks: int  # stored, but of no cache that can be
    operations: int  # blocks stored and removed, as announced
    batches: int
    gaps: int
    restarts: int
    undecodable: int  # messages and events that could not be read
    uploads: int  # times that the index was told everything
    lag_s: float  # from the engine's step to the index, by both clocks
    why: str  # why there are no events; "" where there are
    skipped_blocks: int = 0  # stored, but on a medium that isn't followed
    limit: str = ""  # the bound that it goes beyond, and why less is known of it than it tells; "" for none


@dataclass(slots=True)
class Incarnation:
    """What one engine process told us. Batches are counted from 0 here, whatever number the engine gives them."""

    tracker: Tracker
    epoch: int
    batches: int = 0  # taken
    uploaded: int = -1  # the last batch that the index knows of
    stale: bool = True  # the index has to be told everything
    retry_s: float = 0.0  # loop time before which it isn't told so
    next_s: float = 0.0  # loop time before which it isn't told of anything
    pause_s: float = 0.0  # the last pause between two such attempts
    oldest_s: float | None = None  # Unix time at which the oldest batch that the index doesn't know was published

    def failed(self, now_s: float) -> None:
        """The index could not be told: tell it everything, after a pause that grows."""
        self.stale = True
        self.pause_s = min(max(2 * self.pause_s, _PAUSE_S[0]), _PAUSE_S[1])
        self.retry_s = now_s + self.pause_s


class Feed:
    """Invariant: `incarnation` is None until the first thing is known of the engine, and replaced with each restart."""

    def __init__(
        self,
        spec: FeedSpec,
        root: Callable[[str | None], BlockKey],
        activity: Callable[[], None],
        now: Callable[[], float] = time.time,
        media: Collection[str] = (),
    ) -> None:
        """`media` are followed beside the GPU, in capitals."""
        self.spec = spec
        self.incarnation: Incarnation | None = None
        self.mode_uploaded: Mode | None = None
        self.uploads = 0
        self.touched = False  # something happened since this was last set to False
        self.task: asyncio.Task[None] | None = None
        self.telling: asyncio.Task[None] | None = None  # the index, of what happened
        self._root = root
        self._media = media
        self._activity = activity
        self._now = now
        self._source: Source | None = None
        self._epoch = 0
        self._ahead_ms = 0
        self._operations = 0
        self._batches = 0
        self._restarts = 0
        self._undecodable = 0
        self._lag_s = 0.0
        self._why = "not asked yet"
        self._limit = ""
        self._quiet_until_s = 0.0

    def start(self, context: "zmq.Context[zmq.Socket[bytes]]", engines: EngineClient, ports: Ports) -> None:
        """Find the publisher and subscribe, in the background."""
        self.task = asyncio.create_task(self._subscribe(context, engines, ports), name=f"events {self.spec.endpoint}")

    def close(self) -> None:
        """Stop following."""
        for task in self.tasks:
            task.cancel()
        if self._source:
            self._source.close()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """That run for this endpoint."""
        return [task for task in (self.task, self.telling) if task]

    def container_started(self, started_ms: int) -> None:
        """The endpoint's container is known to have started then: an incarnation from before is over."""
        if self._source and self.incarnation and self.incarnation.epoch < started_ms:
            self._source.restarted()

    @property
    def stale(self) -> bool:
        """The index has to be told everything."""
        return self.incarnation is not None and self.incarnation.stale

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the index may be told what happened, by loop time `now_s`; None: there is nothing to tell."""
        if self.telling is not None or not (self.touched or self.stale):
            return None
        return max(0.0, self.incarnation.next_s - now_s) if self.incarnation else 0.0

    @property
    def mode(self) -> Mode | None:
        """How well the endpoint's cache is known; None: not at all yet."""
        if self._source is None:
            return None
        if self.incarnation is None:  # what another owner, or we before, wrote may still stand in the index
            return Mode.APPROX if self._source.connected else None
        return self.incarnation.tracker.mode if self._source.sequence.proven else Mode.APPROX

    @property
    def catching_up(self) -> bool:
        """A replay is under way that may change everything."""
        return self._source is not None and self._source.sequence.catching_up

    def sink(self, effect: Take | Begin | Lost) -> None:
        """What the sequence makes of the publisher's messages."""
        if isinstance(effect, Take):
            self._take(effect.payload)
        elif isinstance(effect, Begin):
            self._begin(effect.complete)
        elif self.incarnation:
            self.incarnation.tracker.lost()
            self._warn("events lost")

    def uploaded(self, incarnation: Incarnation, last: int) -> None:
        """The index knows of all batches up to `last`."""
        incarnation.uploaded = last
        if incarnation.oldest_s is not None:
            self._lag_s = max(0.0, self._now() - incarnation.oldest_s)
            incarnation.oldest_s = None

    def go_past(self, incarnation: Incarnation) -> None:
        """Somebody wrote under a later epoch than this incarnation's, by a clock ahead of ours: go past it."""
        self._ahead_ms = min(max(2 * self._ahead_ms, 1000), _FARTHEST_AHEAD_MS)
        self._epoch = incarnation.epoch = max(int(self._now() * 1000) + self._ahead_ms, self._epoch + 1)

    def start_afresh(self, why: str) -> None:
        """Too much is held of this endpoint: forget all of it, and be approximate until its cache has turned over."""
        if self.incarnation:
            self._limit = why
            self.incarnation.tracker = Tracker(self.spec.endpoint, self._root, False, self._media)
            self.incarnation.stale = True
            log.warning("cache forgotten", extra={"endpoint": self.spec.endpoint, "why": why})

    @property
    def entries(self) -> int:
        """What is held of the endpoint's caches: see `Tracker.entries`."""
        return self.incarnation.tracker.entries if self.incarnation else 0

    def stats(self) -> FeedStats:
        """A snapshot for metrics."""
        incarnation, source = self.incarnation, self._source
        oldest_s = incarnation.oldest_s if incarnation else None
        return FeedStats(
            self.spec.endpoint,
            self.mode,
            source.connected if source else False,
            incarnation.tracker.blocks if incarnation else 0,
            incarnation.tracker.waiting_blocks if incarnation else 0,
            incarnation.tracker.unplaced_blocks if incarnation else 0,
            self._operations,
            self._batches,
            source.sequence.gaps if source else 0,
            self._restarts,
            self._undecodable + (source.malformed if source else 0),
            self.uploads,
            self._lag_s if oldest_s is None else max(0.0, self._now() - oldest_s),
            self._why,
            incarnation.tracker.skipped_blocks if incarnation else 0,
            (incarnation.tracker.limit if incarnation else "") or self._limit,
        )

    async def _subscribe(self, context: "zmq.Context[zmq.Socket[bytes]]", engines: EngineClient, ports: Ports) -> None:
        """Also later: an engine that was started again may publish elsewhere."""
        followed: Addresses | None = None
        pause_s, longest_s = _RETRY_S
        while True:
            if self._source and self._source.failure:
                self._say(f"subscription failed: {self._source.failure}")
                self._source = followed = None
            elif self._source is None or not self._source.connected:
                try:
                    found = await discover(engines, self.spec, ports)
                    if isinstance(found, NoEvents):
                        self._say(found.reason)
                    elif found != followed:
                        followed = None
                        self._open(context, found)
                        followed = found
                except Unreachable as error:
                    self._say(f"unreachable: {error}")
                except zmq.ZMQError as error:
                    self._say(f"no subscription: {error}")
                except Exception as error:
                    log.exception("subscription failed", extra={"endpoint": self.spec.endpoint})
                    self._say(f"failed: {type(error).__name__}: {error}")
            else:
                self._why = ""  # the socket may have found its way back by itself
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def _open(self, context: "zmq.Context[zmq.Socket[bytes]]", addresses: Addresses) -> None:
        if self._source:
            self._source.close()
            self._source = None
        self._source = Source(context, addresses.events, addresses.replay, self.sink, self._touch)
        self._why = ""

    def _touch(self) -> None:
        self.touched = True
        self._activity()

    def _warn(self, message: str, **more: str) -> None:
        """An engine must not fill the log: one warning in a while, the metrics have them all."""
        if self._now() >= self._quiet_until_s:
            self._quiet_until_s = self._now() + _LOG_S
            log.warning(message, extra={"endpoint": self.spec.endpoint, **more})

    def _say(self, why: str) -> None:
        why = why[:_WHY_CHARS]
        if why != self._why:
            log.info("no events", extra={"endpoint": self.spec.endpoint, "why": why})
        self._why = why

    def _begin(self, complete: bool) -> None:
        self._restarts += self.incarnation is not None
        self._epoch = max(int(self._now() * 1000), self._epoch + 1)
        self.incarnation = Incarnation(Tracker(self.spec.endpoint, self._root, complete, self._media), self._epoch)
        self._limit = ""
        log.info("engine found", extra={"endpoint": self.spec.endpoint, "from_its_first_batch": complete})

    def _take(self, payload: bytes) -> None:
        incarnation = self.incarnation
        assert incarnation is not None, "a sequence takes nothing before it began"
        self._batches += 1
        incarnation.batches += 1
        try:
            batch = decode(payload)
        except UndecodableBatch as error:
            self._undecodable += 1
            incarnation.tracker.lost()
            self._warn("batch not read", why=str(error)[:_WHY_CHARS])
            return
        self._undecodable += batch.unreadable
        self._operations += incarnation.tracker.apply(batch)
        if incarnation.oldest_s is None and not self.catching_up:
            incarnation.oldest_s = batch.published_s
        if incarnation.tracker.pending > MAX_PENDING:
            incarnation.tracker.take()
            incarnation.stale = True
