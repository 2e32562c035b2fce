"""Tells the index what changed at the endpoints that are followed here.

Every engine's batches go into a `Tracker`, which is the truth; the index is told of the differences, and of everything
where it lost the thread: another owner wrote, the store was away or came back empty. So what waits to be told is
bounded, however long the store is away.

One call covers the batches since the last one. Their numbers are counted here from the begin of each incarnation, so
that they have no holes; a new incarnation, or owner, is a new epoch, which fences off whoever wrote before.
"""

from collections.abc import Sequence

from multipick_epp.events.feed import Feed, Incarnation
from multipick_epp.state.protocol import Applied, Delta, Index
from multipick_epp.types import Endpoint

_KNOWN = (Applied.NEW, Applied.DUPLICATE)


async def upload(index: Index, due: Sequence[Feed], now_s: float) -> None:
    """Bring the index up to date with each of `due`. `now_s` is the loop's time. What fails is tried again later."""
    deltas: list[Delta] = []
    sent: list[tuple[Feed, Incarnation, range, int]] = []  # with its places in `deltas`, and the last batch
    for feed in due:
        feed.touched = False
        incarnation = feed.incarnation
        if incarnation is None:
            continue
        if incarnation.stale:
            await _upload_all(index, feed, incarnation, now_s)
            continue
        clears, changes = incarnation.tracker.take()
        first, last = incarnation.uploaded + 1, incarnation.batches - 1
        if clears and not await _clear(index, feed.spec.endpoint, incarnation, clears):
            incarnation.failed(now_s)
        elif changes:
            sent.append((feed, incarnation, range(len(deltas), len(deltas) + len(changes)), last))
            deltas += [Delta(c.cache, incarnation.epoch, first, last, c.stored, c.removed) for c in changes]
    applied = await index.apply(deltas) if deltas else ()
    for feed, incarnation, places, last in sent:
        if all(applied[place] in _KNOWN for place in places):
            feed.uploaded(incarnation, last)
        else:
            incarnation.stale = True
    for feed in due:
        await _upload_mode(index, feed)


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
