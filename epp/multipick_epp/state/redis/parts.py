"""Deltas of any size -> script calls of a bounded one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multipick_epp.state.protocol import Cache, Delta
from multipick_epp.types import BlockKey

OPERATIONS_A_CALL = 512
"""Blocks that one script call writes: it keeps the server busy for about a millisecond."""


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
    """Group the deltas' parts, each with its delta's place, into calls of at most `OPERATIONS_A_CALL` operations."""
    call: list[tuple[int, Part]] = []
    size = 0
    for place, delta in enumerate(deltas):
        for part in parts_of(delta):
            operations = max(1, len(part.stored) + len(part.removed))
            if call and size + operations > OPERATIONS_A_CALL:
                yield call
                call, size = [], 0
            call.append((place, part))
            size += operations
    if call:
        yield call
