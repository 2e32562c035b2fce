"""Tells the index what changed at the endpoints that are followed here.

Every engine's batches go into a `Tracker`, which is the truth; the index is told of the differences, and of everything
where it lost the thread: another owner wrote, the store was away or came back empty. So what waits to be told is
bounded, however long the store is away.

One call covers the batches since the last one. Their numbers are counted here from the begin of each incarnation, so
that they have no holes; a new incarnation, or owner, is a new epoch, which fences off whoever wrote before.

Each endpoint is told of by itself, and at most OPERATIONS_PER_S of it: what changes faster than that is summed up. So
an engine's haste, or what the index makes of its blocks, is felt by that endpoint alone.
"""

import logging
from collections.abc import Sequence

from multipick_epp.events.feed import Feed, Incarnation
from multipick_epp.state.protocol import Applied, Delta, Index
from multipick_epp.types import Endpoint

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
        if incarnation is not None:
            await _upload_blocks(index, feed, incarnation, now_s)
        await _upload_mode(index, feed)
    except Exception:
        log.exception("index not told", extra={"endpoint": feed.spec.endpoint})
        feed.mode_uploaded = None
        if incarnation is not None:
            incarnation.failed(now_s)


async def _upload_blocks(index: Index, feed: Feed, incarnation: Incarnation, now_s: float) -> None:
    if incarnation.stale:
        await _upload_all(index, feed, incarnation, now_s)
        return
    clears, changes = incarnation.tracker.take()
    first, last = incarnation.uploaded + 1, incarnation.batches - 1
    if clears and not await _clear(index, feed.spec.endpoint, incarnation, clears):
        incarnation.failed(now_s)
        return
    if not changes:
        return
    deltas = [Delta(c.cache, incarnation.epoch, first, last, c.stored, c.removed) for c in changes]
    operations = sum(len(delta.stored) + len(delta.removed) for delta in deltas)
    incarnation.next_s = now_s + min(operations / OPERATIONS_PER_S, LONGEST_S)
    if all(each in _KNOWN for each in await index.apply(deltas)):
        incarnation.pause_s = 0.0
        feed.uploaded(incarnation, last)
    else:
        incarnation.failed(now_s)


async def _clear(index: Index, endpoint: Endpoint, incarnation: Incarnation, media: Sequence[str]) -> bool:
    first = incarnation.uploaded + 1
    applied = [await index.clear(endpoint, incarnation.epoch, first, medium) for medium in media]
    incarnation.uploaded = first
    return all(each in _KNOWN for each in applied)


async def _upload_all(index: Index, feed: Feed, incarnation: Incarnation, now_s: float) -> None:
    """What the index has stays until a replay is through: it may be another owner's, and nearly right."""
    if feed.catching_up or now_s < incarnation.retry_s:
        incarnation.tracker.take()
        return
    last = incarnation.batches - 1
    incarnation.stale = False  # before the index is asked: it may say meanwhile that it lost something
    feed.mode_uploaded = None
    contents = incarnation.tracker.contents()
    applied = await index.replace(feed.spec.endpoint, incarnation.epoch, last, contents)
    blocks = sum(map(len, contents.values()))
    incarnation.retry_s = max(incarnation.retry_s, now_s + blocks / OPERATIONS_PER_S)
    if applied in _KNOWN:
        feed.uploaded(incarnation, last)
        feed.uploads += 1
        return
    if applied is Applied.STALE:
        feed.go_past(incarnation)
    incarnation.failed(now_s)


async def _upload_mode(index: Index, feed: Feed) -> None:
    """After the blocks, so that nobody takes an old index for an exact one."""
    mode = feed.mode
    if mode is None or mode is feed.mode_uploaded or feed.stale:
        return
    feed.mode_uploaded = mode
    await index.set_mode(feed.spec.endpoint, mode)
