"""Deltas of any size -> script calls of a bounded one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Delta
from multipick_epp.state.redis.records import cache_name
from multipick_epp.types import BlockKey

OPERATIONS_A_CALL = 512
"""Blocks that one script call writes: it keeps the server busy for about a millisecond, and is one entry of the log."""
_KEY_BYTES = 8
_RECORD_BYTES = 16
"""A record's kind, its header, and its lengths in the stream."""


@dataclass(frozen=True, slots=True)
class Part:
    """A delta, or a piece of one, that fits one call. Only a delta's last piece has its real `last`."""

    cache: Cache
    epoch: int
    first: int
    last: int
    stored: Sequence[BlockKey]
    removed: Sequence[BlockKey]


def parts_of(delta: Delta) -> Iterator[Part]:
    """Cut a delta into pieces of at most `OPERATIONS_A_CALL` operations."""
    stored, removed = len(delta.stored), len(delta.removed)
    at = 0
    while stored + removed - at > OPERATIONS_A_CALL:
        end = at + OPERATIONS_A_CALL
        yield Part(
            *(delta.cache, delta.epoch, delta.first, delta.first - 1),
            delta.stored[at:end],
            delta.removed[max(0, at - stored) : max(0, end - stored)],
        )
        at = end
    yield Part(
        *(delta.cache, delta.epoch, delta.first, delta.last), delta.stored[at:], delta.removed[max(0, at - stored) :]
    )


def calls_of(deltas: Sequence[Delta]) -> Iterator[list[tuple[int, Part]]]:
    """Group the deltas' parts, each with its delta's place, into calls of at most `OPERATIONS_A_CALL` operations.

    What stands in the log beside the keys counts by its bytes, as if it were keys, where a call has several parts.
    """
    call: list[tuple[int, Part]] = []
    size = 0
    for place, delta in enumerate(deltas):
        for part in parts_of(delta):
            keys = len(part.stored) + len(part.removed)
            cost = keys + (_RECORD_BYTES + len(cache_name(part.cache))) // _KEY_BYTES
            if call and size + cost > OPERATIONS_A_CALL:
                yield call
                call, size = [], 0
            call.append((place, part))
            size += cost
    if call:
        yield call
