"""Tells the index what changed at the endpoints that are followed here.

Every engine's batches go into a `Tracker`, which is the truth; the index is told of the differences, and of everything
where it lost the thread: another owner wrote, the store was away or came back empty. So what waits to be told is
bounded, however long the store is away.

One call covers the batches since the last one. Their numbers are counted here from the begin of each incarnation, so
that they have no holes; a new incarnation, or owner, is a new epoch, which fences off whoever wrote before.
"""

from collections.abc import Sequence

from multipick_epp.events.followed import Followed, Incarnation
from multipick_epp.state.protocol import Applied, Delta, Index
from multipick_epp.types import Endpoint

_TOLD = (Applied.NEW, Applied.DUPLICATE)


async def tell(index: Index, due: Sequence[Followed], now_s: float) -> None:
    """Bring the index up to date with each of `due`. `now_s` is the loop's time. What fails is tried again later."""
    deltas: list[Delta] = []
    sent: list[tuple[Followed, Incarnation, range, int]] = []  # with its places in `deltas`, and the last batch
    for followed in due:
        followed.touched = False
        incarnation = followed.incarnation
        if incarnation is None:
            continue
        if incarnation.stale:
            await _tell_all(index, followed, incarnation, now_s)
            continue
        clears, changes = incarnation.tracker.take()
        first, last = incarnation.told + 1, incarnation.batches - 1
        if clears and not await _clear(index, followed.feed.endpoint, incarnation, clears):
            incarnation.failed(now_s)
        elif changes:
            sent.append((followed, incarnation, range(len(deltas), len(deltas) + len(changes)), last))
            deltas += [Delta(c.slot, incarnation.epoch, first, last, c.stored, c.removed) for c in changes]
    applied = await index.apply(deltas) if deltas else ()
    for followed, incarnation, places, last in sent:
        if all(applied[place] in _TOLD for place in places):
            followed.told(incarnation, last)
        else:
            incarnation.stale = True
    for followed in due:
        await _tell_mode(index, followed)


async def _clear(index: Index, endpoint: Endpoint, incarnation: Incarnation, media: Sequence[str]) -> bool:
    first = incarnation.told + 1
    applied = [await index.clear(endpoint, incarnation.epoch, first, medium) for medium in media]
    incarnation.told = first
    return all(each in _TOLD for each in applied)


async def _tell_all(index: Index, followed: Followed, incarnation: Incarnation, now_s: float) -> None:
    """What the index has stays until a replay is through: it may be another owner's, and nearly right."""
    if followed.catching_up or now_s < incarnation.retry_s:
        incarnation.tracker.take()
        return
    last = incarnation.batches - 1
    incarnation.stale = False  # before the index is asked: it may say meanwhile that it lost something
    followed.mode_told = None
    contents = incarnation.tracker.contents()
    applied = await index.replace(followed.feed.endpoint, incarnation.epoch, last, contents)
    if applied in _TOLD:
        followed.told(incarnation, last)
        followed.uploads += 1
        return
    if applied is Applied.STALE:
        followed.go_past(incarnation)
    incarnation.failed(now_s)


async def _tell_mode(index: Index, followed: Followed) -> None:
    """After the blocks, so that nobody takes an old index for an exact one."""
    mode = followed.mode
    if mode is None or mode is followed.mode_told or followed.stale:
        return
    followed.mode_told = mode
    await index.set_mode(followed.feed.endpoint, mode)
