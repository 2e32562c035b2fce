"""One endpoint whose events this process follows: from its addresses to what the index has to be told."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from multipick_epp.engines import EngineClient
from multipick_epp.events.decode import UndecodableBatch, decode
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.incarnation import Incarnation
from multipick_epp.events.link import Context
from multipick_epp.events.sequence import Begin, Lost, Take
from multipick_epp.events.subscription import WHY_CHARS, Subscription
from multipick_epp.events.tracker import Tracker
from multipick_epp.state.protocol import Index
from multipick_epp.state.succession import Position, Tenure
from multipick_epp.types import BlockKey, Mode

log = logging.getLogger(__name__)

MAX_PENDING = 1 << 18  # operations; beyond, the index is told everything anew instead
MAX_ENTRIES = 1 << 22
"""Of one endpoint, see `Tracker.entries`: two million blocks, 600 MB. Beyond, what is known of it starts afresh."""
_TAKE_OVER_PAUSE_S = 0.25  # while the index is away
NOTE_S = 1.0
"""Batches that change nothing are noted at most so often: a successor would have to replay that much more."""
HAND_OVER_S = 1.7
"""What the last owner said of an endpoint stands for so long from the moment we want it on: while we take it over, read
what is left of it, and look whether its engine is still the same. Meanwhile nobody tells what its engine does.
"""
_LOG_S = 10.0  # between two lines of one kind about one endpoint


@dataclass(frozen=True, slots=True)
class Common:
    """What all feeds share."""

    index: Index
    context: Context
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
        self.subscription = Subscription(spec, self.sink, self._touch, self._after)
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
        self._batches_before = 0  # of this incarnation
        self._left: Position | None = None  # where the owner before us was, until we went on
        self._left_until_s = 0.0  # loop time until which his word stands
        self._operations = 0
        self._batches = 0
        self._restarts = 0
        self._undecodable = 0
        self._lag_s = 0.0
        self._limit = ""
        self._quiet_until_s: dict[str, float] = {}  # Unix time, by the message of a line in the log

    def start(self, common: Common) -> None:
        """Take the endpoint over when it is its turn, find its publisher and subscribe, in the background."""
        self.task = asyncio.create_task(self._follow(common), name=f"events {self.spec.endpoint}")

    def stop(self) -> None:
        """Follow no longer. What was heard can still be told."""
        if self.task:
            self.task.cancel()
        self.subscription.close()

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
        before, self.subscription.spec = self.spec.started_ms, spec
        source = self.subscription.source
        if source and _is_later(spec.started_ms, before):
            source.restarted()

    @property
    def spec(self) -> FeedSpec:
        """The endpoint, and what is known of its publisher."""
        return self.subscription.spec

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
        source, incarnation = self.subscription.source, self.incarnation
        if incarnation is None:  # what another owner, or we before, wrote may still stand in the index
            return Mode.APPROX if self.subscription.connected else None
        if source is None or source.failure or not source.sequence.sure:
            inherited = self._left is not None and asyncio.get_running_loop().time() < self._left_until_s
            return None if inherited else Mode.APPROX
        return Mode.APPROX if incarnation.stale else incarnation.tracker.mode

    @property
    def position(self) -> Position | None:
        """The batch up to which everything was taken, for a successor."""
        source, incarnation = self.subscription.source, self.incarnation
        if source is None or source.failure or incarnation is None or source.sequence.last is None:
            return None
        exact = incarnation.tracker.mode is Mode.EXACT
        return Position(*source.sequence.last, exact, source.events, self.spec.started_ms)

    @property
    def catching_up(self) -> bool:
        """A replay is under way that may change everything."""
        source = self.subscription.source
        return source is not None and source.sequence.catching_up

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
        incarnation, subscription = self.incarnation, self.subscription
        oldest_s = incarnation.oldest_s if incarnation else None
        return FeedStats(
            self.spec.endpoint,
            self.mode,
            subscription.connected,
            incarnation.tracker.blocks if incarnation else 0,
            incarnation.tracker.waiting_blocks if incarnation else 0,
            incarnation.tracker.unplaced_blocks if incarnation else 0,
            self._operations,
            self._batches,
            subscription.gaps,
            self._restarts,
            self._undecodable + subscription.malformed,
            self.uploads,
            self._lag_s if oldest_s is None else max(0.0, self._now() - oldest_s),
            subscription.why,
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
                self.subscription.say("the index is away")
            except Exception as error:
                log.exception("endpoint not taken over", extra={"endpoint": self.spec.endpoint})
                self.subscription.say(f"failed: {type(error).__name__}: {error}")
            finally:
                self.taking = False
            await asyncio.sleep(_TAKE_OVER_PAUSE_S)
        await self.subscription.keep_up(common.context, common.engines, common.ports)

    async def take_over(self, index: Index, tenure: Tenure) -> None:
        """Go on from where the owner before us was, if that is possible."""
        self.epoch, self._batches_before, self.mode_uploaded = tenure.epoch, tenure.last + 1, tenure.mode
        left = tenure.inheritance
        tracker = None
        if left is not None and not _is_later(self.spec.started_ms, left.position.started_ms):
            tracker = Tracker.restored(self.spec.endpoint, self._root, left, self._media)
        log.info("endpoint taken over", extra={"endpoint": self.spec.endpoint, "goes_on": tracker is not None})
        if left is not None and tracker is not None:
            self.incarnation = Incarnation(tracker, tenure.epoch, tenure.last + 1, tenure.last, False)
            self._left = self.incarnation.noted = left.position
        elif self.mode_uploaded is Mode.EXACT:
            self.mode_uploaded = Mode.APPROX
            await index.set_mode(self.spec.endpoint, self.epoch, Mode.APPROX)

    def _after(self, publisher: str) -> tuple[int, int] | None:
        if self._left is not None and self._left.publisher != publisher:  # another publisher is another process
            self._left = None
        return None if self._left is None else (self._left.seq, self._left.digest)

    def _touch(self) -> None:
        self.touched = True
        self._activity()

    def _log(self, level: int, message: str, **more: object) -> None:
        """An engine must not fill the log: a message comes once in a while, the metrics have them all."""
        if self._now() >= self._quiet_until_s.get(message, 0.0):
            self._quiet_until_s[message] = self._now() + _LOG_S
            log.log(level, message, extra={"endpoint": self.spec.endpoint, **more})

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
            self._log(logging.WARNING, "batch not read", why=str(error)[:WHY_CHARS])
            return
        self._undecodable += batch.unreadable
        self._operations += incarnation.tracker.apply(batch)
        if incarnation.oldest_s is None and not self.catching_up:
            incarnation.oldest_s = batch.published_s
        if incarnation.tracker.pending > MAX_PENDING:
            incarnation.tracker.take()
            incarnation.stale = True


def _is_later(started_ms: int | None, before_ms: int | None) -> bool:
    """As far as both times are known."""
    return started_ms is not None and before_ms is not None and started_ms > before_ms
