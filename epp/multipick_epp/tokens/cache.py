"""The ids of segments seen before, least recently used out first, bounded by bytes."""

import sys
from collections import OrderedDict
from collections.abc import Iterable

from multipick_epp.tokens.segments import Ids, Segment, text_of

_ENTRY_BYTES = 250
"""What an entry costs besides its text and ids: a place in the table and in the order."""


class SegmentCache:
    """Segment -> ids. Used by one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0  # the sum of `_cost` over the entries; never above `_max_bytes` between two calls
        self._entries: OrderedDict[Segment, Ids] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Memory that the entries take."""
        return self._bytes

    def find(self, segments: Iterable[Segment], found: dict[Segment, Ids]) -> list[Segment]:
        """Those whose ids are not known, each once; the ids of the others come into `found`, where they are not yet."""
        get, used = self._entries.get, self._entries.move_to_end
        unknown: dict[Segment, None] = {}
        for segment in segments:
            if segment not in found:
                ids = get(segment)
                if ids is None:
                    unknown[segment] = None
                else:
                    found[segment] = ids
                    used(segment)
        return [*unknown]

    def put(self, segment: Segment, ids: Ids) -> None:
        """Keeps the ids, unless they alone are more than the bound."""
        cost = _cost(segment, ids)
        if segment in self._entries or cost > self._max_bytes:
            return
        self._entries[segment] = ids
        self._bytes += cost
        while self._bytes > self._max_bytes:
            self._bytes -= _cost(*self._entries.popitem(last=False))


def _cost(segment: Segment, ids: Ids) -> int:
    return sys.getsizeof(text_of(segment)) + sys.getsizeof(ids) + _ENTRY_BYTES
