"""Tells the index what changed at the endpoints that are followed here.

Every engine's batches go into a `Tracker`, which is the truth; the index is told of the differences, and of everything
where it lost the thread: another owner wrote, the store was away or came back empty. So what waits to be told is
bounded, however long the store is away.

One call covers the batches since the last one. Their numbers are counted here, on from owner to owner, so that they
have no holes. In the same breath the index is told what a successor of ours needs to go on from there.

Each endpoint is told of by itself, and at most OPERATIONS_PER_S of it: what changes faster than that is summed up. So
an engine's haste, or what the index makes of its blocks, is felt by that endpoint alone.
"""

import asyncio
import logging
from collections.abc import Sequence

from multipick_epp.events.feed import NOTE_S, Feed
from multipick_epp.events.incarnation import Incarnation
from multipick_epp.state.protocol import Applied, Delta, Index
from multipick_epp.types import Mode

log = logging.getLogger(__name__)

OPERATIONS_PER_S = 50_000
"""Of one endpoint. An engine that prefills 100,000 tokens/s in blocks of 16 changes 12,500; every picker plays them."""
LONGEST_S = 1.0
"""The next telling waits at most so long, however large the last one was."""
_KNOWN = (Applied.NEW, Applied.DUPLICATE)


async def upload(index: Index, feed: Feed, now_s: float) -> None:
    """Bring the index up to date with `feed`. `now_s` is the loop's time. What fails is tried again later."""
    feed.touched = False
    incarnation = feed.incarnation
    try:
        mode = feed.mode
        if incarnation is not None and incarnation.stale:
            mode = await _upload_all(index, feed, incarnation, now_s)
        elif incarnation is not None:
            await _upload_blocks(index, feed, incarnation, now_s)
        # What came while the index was told is not told yet: it may be what makes the endpoint exact.
        await _upload_mode(index, feed, mode if feed.mode is Mode.EXACT else feed.mode)
    except Exception:
        log.exception("index not told", extra={"endpoint": feed.spec.endpoint})
        feed.mode_uploaded = None
        if incarnation is not None:
            incarnation.failed(now_s)


async def _upload_blocks(index: Index, feed: Feed, incarnation: Incarnation, now_s: float) -> None:
    position = feed.position
    clears, changes = incarnation.tracker.take()
    nothing_new = position == incarnation.noted or now_s < incarnation.noted_s + NOTE_S
    if nothing_new and not clears and not changes and not incarnation.tracker.pending:
        return
    endpoint, epoch = feed.spec.endpoint, incarnation.epoch
    first, last = incarnation.uploaded + 1, incarnation.batches - 1
    if clears and not await _clear(index, feed, incarnation, clears, now_s):
        return
    deltas = [Delta(c.cache, epoch, first, last, c.stored, c.removed) for c in changes]
    operations = sum(len(delta.stored) + len(delta.removed) for delta in deltas)
    incarnation.next_s = now_s + min(operations / OPERATIONS_PER_S, LONGEST_S)
    writing = index.apply(deltas), index.note(endpoint, epoch, incarnation.tracker.notes(position))
    applied, noted = await asyncio.gather(*writing)
    if Applied.DUPLICATE in applied:  # we tell nothing twice: somebody meddled with what the index has seen
        noted = Applied.GAP
    if _went_well(feed, incarnation, [*applied, noted], now_s):
        incarnation.noted, incarnation.noted_s = position, now_s
        feed.uploaded(incarnation, last if deltas else incarnation.uploaded)


async def _clear(index: Index, feed: Feed, incarnation: Incarnation, media: Sequence[str], now_s: float) -> bool:
    first = incarnation.uploaded + 1
    applied = [await index.clear(feed.spec.endpoint, incarnation.epoch, first, medium) for medium in media]
    incarnation.uploaded = first
    return _went_well(feed, incarnation, applied, now_s)


def _went_well(feed: Feed, incarnation: Incarnation, applied: Sequence[Applied], now_s: float) -> bool:
    if Applied.STALE in applied:
        feed.fenced_off = True
    if all(each in _KNOWN for each in applied):
        return True
    incarnation.failed(now_s)
    return False


async def _upload_all(index: Index, feed: Feed, incarnation: Incarnation, now_s: float) -> Mode | None:
    """The feed's mode as of what the index was told.

    What the index has stays until a replay is through: it may be another owner's, and nearly right.
    """
    await _upload_mode(index, feed, feed.mode)
    if feed.catching_up or now_s < incarnation.retry_s:
        incarnation.tracker.take()
        return feed.mode
    last = incarnation.batches - 1
    incarnation.stale = False  # before the index is asked: it may say meanwhile that it lost something
    mode = feed.mode
    contents, position = incarnation.tracker.contents(), feed.position
    notes = incarnation.tracker.notes(position)
    applied = await index.replace(feed.spec.endpoint, incarnation.epoch, last, contents)
    if applied in _KNOWN:
        applied = await index.note(feed.spec.endpoint, incarnation.epoch, notes)
    blocks = sum(map(len, contents.values()))
    incarnation.retry_s = max(incarnation.retry_s, now_s + blocks / OPERATIONS_PER_S)
    if _went_well(feed, incarnation, [applied], now_s):
        incarnation.noted, incarnation.noted_s = position, now_s
        feed.uploaded(incarnation, last)
        feed.uploads += 1
    return mode


async def _upload_mode(index: Index, feed: Feed, mode: Mode | None) -> None:
    """After the blocks, so that nobody takes an old index for an exact one; and before they are told anew."""
    if mode is None or mode is feed.mode_uploaded:
        return
    feed.mode_uploaded = mode
    applied = await index.set_mode(feed.spec.endpoint, feed.epoch, mode)
    if applied is Applied.STALE:
        feed.fenced_off = True
    elif applied not in _KNOWN:
        feed.mode_uploaded = None  # told again with the next look
