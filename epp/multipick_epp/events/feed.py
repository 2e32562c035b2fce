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
from multipick_epp.events.incarnation import Incarnation
from multipick_epp.events.sequence import Begin, Lost, Take
from multipick_epp.events.source import Source
from multipick_epp.events.tracker import Tracker
from multipick_epp.state.protocol import Index
from multipick_epp.state.succession import Position, Tenure
from multipick_epp.types import BlockKey, Endpoint, Mode

log = logging.getLogger(__name__)

MAX_PENDING = 1 << 18  # operations; beyond, the index is told everything anew instead
MAX_ENTRIES = 1 << 22
"""Of one endpoint, see `Tracker.entries`: two million blocks, 600 MB. Beyond, what is known of it starts afresh."""
_RETRY_S = (0.5, 10.0)  # first and longest pause before an engine is asked for its ports again
_TAKE_OVER_PAUSE_S = 0.25  # while the index is away
NOTE_S = 1.0
"""Batches that change nothing are noted at most so often: a successor would have to replay that much more."""
HAND_OVER_S = 1.7
"""What the last owner said of an endpoint stands for so long from the moment we want it on: while we take it over, read
what is left of it, and look whether its engine is still the same. Meanwhile nobody tells what its engine does.
"""
_WHY_CHARS = 200
_LOG_S = 10.0  # between two lines of one kind about one endpoint


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


@dataclass(frozen=True, slots=True)
class Common:
    """What all feeds share."""

    index: Index
    context: "zmq.Context[zmq.Socket[bytes]]"
    engines: EngineClient
    ports: Ports
    taking: asyncio.Semaphore  # for as many endpoints as are taken over at one time


class Feed:
    """Invariants: `incarnation` is None until the first thing is known of the engine, and replaced with each restart;
    what is written is written under `epoch`, 0 before the endpoint was taken over.
    """

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
        self.fenced_off = False  # somebody else has taken the endpoint over
        self.epoch = 0
        self.taking = False  # it is being taken over: the owner before us may follow it no longer
        self.task: asyncio.Task[None] | None = None
        self.telling: asyncio.Task[None] | None = None  # the index, of what happened
        self._root = root
        self._media = media
        self._activity = activity
        self._now = now
        self._source: Source | None = None
        self._batches_before = 0  # of this incarnation
        self._left: Position | None = None  # where the owner before us was, until we went on
        self._left_until_s = 0.0  # loop time until which his word stands
        self._operations = 0
        self._batches = 0
        self._restarts = 0
        self._undecodable = 0  # without the present source's, as with `_gaps`
        self._gaps = 0
        self._lag_s = 0.0
        self._why = "not asked yet"
        self._limit = ""
        self._quiet_until_s: dict[str, float] = {}  # Unix time, by the message of a line in the log

    def start(self, common: Common) -> None:
        """Take the endpoint over when it is its turn, find its publisher and subscribe, in the background."""
        self.task = asyncio.create_task(self._follow(common), name=f"events {self.spec.endpoint}")

    def stop(self) -> None:
        """Follow no longer. What was heard can still be told."""
        if self.task:
            self.task.cancel()
        if self._source:
            self._source.close()

    def close(self) -> None:
        """Stop, and tell nothing more."""
        self.stop()
        if self.telling:
            self.telling.cancel()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """That run for this endpoint."""
        return [task for task in (self.task, self.telling) if task]

    def changed(self, spec: FeedSpec) -> None:
        """More is known of the same publisher: when its container started. One that started later is another engine.

        These times are compared with each other alone: they are those of the nodes' clocks.
        """
        before, self.spec = self.spec.started_ms, spec
        if self._source and before is not None and spec.started_ms is not None and before < spec.started_ms:
            self._source.restarted()

    @property
    def stale(self) -> bool:
        """The index has to be told everything."""
        return self.incarnation is not None and self.incarnation.stale

    def look(self, now_s: float) -> None:
        """Whatever nobody announces may have become worth telling, by loop time `now_s`."""
        incarnation = self.incarnation
        waits = incarnation is not None and now_s >= incarnation.noted_s + NOTE_S and self.position != incarnation.noted
        if waits or self.mode not in (None, self.mode_uploaded):
            self.touched = True

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the index may be told what happened, by loop time `now_s`; None: there is nothing to tell."""
        if self.fenced_off or self.telling is not None or not (self.touched or self.stale):
            return None
        return max(0.0, self.incarnation.next_s - now_s) if self.incarnation else 0.0

    @property
    def mode(self) -> Mode | None:
        """How well the endpoint's cache is known; None: what is said of it already stands."""
        source, incarnation = self._source, self.incarnation
        if incarnation is None:  # what another owner, or we before, wrote may still stand in the index
            return Mode.APPROX if source and source.connected else None
        if source is None or source.failure or not source.sequence.sure:
            inherited = self._left is not None and asyncio.get_running_loop().time() < self._left_until_s
            return None if inherited else Mode.APPROX
        return Mode.APPROX if incarnation.stale else incarnation.tracker.mode

    @property
    def position(self) -> Position | None:
        """The batch up to which everything was taken, for a successor."""
        source, incarnation = self._source, self.incarnation
        if source is None or source.failure or incarnation is None or source.sequence.last is None:
            return None
        exact = incarnation.tracker.mode is Mode.EXACT
        return Position(*source.sequence.last, exact, source.events, self.spec.started_ms)

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
            self._log(logging.WARNING, "events lost")

    def uploaded(self, incarnation: Incarnation, last: int) -> None:
        """The index knows of all batches up to `last`."""
        incarnation.uploaded = last
        incarnation.pause_s = 0.0
        if incarnation.oldest_s is not None:
            self._lag_s = max(0.0, self._now() - incarnation.oldest_s)
            incarnation.oldest_s = None

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
            self._gaps + (source.sequence.gaps if source else 0),
            self._restarts,
            self._undecodable + (source.malformed if source else 0),
            self.uploads,
            self._lag_s if oldest_s is None else max(0.0, self._now() - oldest_s),
            self._why,
            incarnation.tracker.skipped_blocks if incarnation else 0,
            (incarnation.tracker.limit if incarnation else "") or self._limit,
        )

    async def _follow(self, common: Common) -> None:
        while not self.epoch:
            try:
                async with common.taking:
                    self._left_until_s = asyncio.get_running_loop().time() + HAND_OVER_S
                    self.taking = True
                    if tenure := await common.index.take_over(self.spec.endpoint):
                        await self.take_over(common.index, tenure)
                        break
                self._say("the index is away")
            except Exception as error:
                log.exception("endpoint not taken over", extra={"endpoint": self.spec.endpoint})
                self._say(f"failed: {type(error).__name__}: {error}")
            finally:
                self.taking = False
            await asyncio.sleep(_TAKE_OVER_PAUSE_S)
        await self._subscribe(common)

    async def take_over(self, index: Index, tenure: Tenure) -> None:
        """Go on from where the owner before us was, if that is possible."""
        self.epoch, self._batches_before, self.mode_uploaded = tenure.epoch, tenure.last + 1, tenure.mode
        left = tenure.inheritance
        tracker = None
        if left is not None and not self._began_since(left.position):
            tracker = Tracker.restored(self.spec.endpoint, self._root, left, self._media)
        log.info("endpoint taken over", extra={"endpoint": self.spec.endpoint, "goes_on": tracker is not None})
        if left is not None and tracker is not None:
            self.incarnation = Incarnation(tracker, tenure.epoch, tenure.last + 1, tenure.last, False)
            self._left = self.incarnation.noted = left.position
        elif self.mode_uploaded is Mode.EXACT:
            self.mode_uploaded = Mode.APPROX
            await index.set_mode(self.spec.endpoint, self.epoch, Mode.APPROX)

    def _began_since(self, position: Position) -> bool:
        """The engine's container is known to be a later one than then."""
        before, now = position.started_ms, self.spec.started_ms
        return before is not None and now is not None and before < now

    async def _subscribe(self, common: Common) -> None:
        """Also later: an engine that was started again may publish elsewhere."""
        followed: Addresses | None = None
        pause_s, longest_s = _RETRY_S
        while True:
            if self._source and self._source.failure:
                self._say(f"subscription failed: {self._source.failure}")
                self._leave_source()
                followed = None
            elif self._source is None or not self._source.connected:
                try:
                    found = await discover(common.engines, self.spec, common.ports)
                    if isinstance(found, NoEvents):
                        self._say(found.reason)
                    elif found != followed:
                        followed = None
                        self._open(common.context, found)
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
        self._leave_source()
        left = self._left
        if left is not None and left.publisher != addresses.events:  # another publisher is another process
            left = self._left = None
        after = None if left is None else (left.seq, left.digest)
        self._source = Source(context, addresses.events, addresses.replay, self.sink, self._touch, after)
        self._why = ""

    def _leave_source(self) -> None:
        source, self._source = self._source, None
        if source:
            source.close()
            self._gaps += source.sequence.gaps
            self._undecodable += source.malformed

    def _touch(self) -> None:
        self.touched = True
        self._activity()

    def _log(self, level: int, message: str, **more: object) -> None:
        """An engine must not fill the log: a message comes once in a while, the metrics have them all."""
        if self._now() >= self._quiet_until_s.get(message, 0.0):
            self._quiet_until_s[message] = self._now() + _LOG_S
            log.log(level, message, extra={"endpoint": self.spec.endpoint, **more})

    def _say(self, why: str) -> None:
        why = why[:_WHY_CHARS]
        if why != self._why:
            log.info("no events", extra={"endpoint": self.spec.endpoint, "why": why})
        self._why = why

    def _begin(self, complete: bool) -> None:
        tracker = Tracker(self.spec.endpoint, self._root, complete, self._media)
        if self.incarnation:
            self._restarts += 1
            self.incarnation = self.incarnation.replaced(tracker)
        else:
            self.incarnation = Incarnation(tracker, self.epoch, self._batches_before, self._batches_before - 1, True)
        self._left = None
        self._limit = ""
        self._log(logging.INFO, "engine found", from_its_first_batch=complete)

    def _take(self, payload: bytes) -> None:
        incarnation = self.incarnation
        assert incarnation is not None, "a sequence takes nothing before it began"
        self._batches += 1
        self._left = None
        incarnation.batches += 1
        try:
            batch = decode(payload)
        except UndecodableBatch as error:
            self._undecodable += 1
            incarnation.tracker.lost()
            self._log(logging.WARNING, "batch not read", why=str(error)[:_WHY_CHARS])
            return
        self._undecodable += batch.unreadable
        self._operations += incarnation.tracker.apply(batch)
        if incarnation.oldest_s is None and not self.catching_up:
            incarnation.oldest_s = batch.published_s
        if incarnation.tracker.pending > MAX_PENDING:
            incarnation.tracker.take()
            incarnation.stale = True
