"""Lanes: one place in a mask for each endpoint, so that what all its caches hold is told of all endpoints at once.

A mask has a bit for each cache. Bits come in words of 64, and each word belongs to a block of 64 *lanes*: its bit `n`
is a bit of the block's lane `n`. An endpoint has one lane, and its caches have bits of that lane, in whichever words.
So the words of a block laid one over the other, `fold`, say of each endpoint whether any of its caches is in the mask.
"""

from heapq import heappop, heappush
from struct import Struct

from multipick_epp.types import Endpoint

WORD = 64
WORDS_AT_MOST = 128
"""Words of a block, hence bits of an endpoint: in use, being filled, or void and still in masks."""


class Lanes:
    """Gives out bits, and knows them again when they are free.

    Invariants: a bit is in `_free[lane]`, or was given out and not come back to `free`. A lane has an endpoint exactly
    while `_in_use` counts bits of it; it is in `_idle` while it has none, but free bits.
    """

    def __init__(self) -> None:
        self.endpoint_at: dict[int, Endpoint] = {}  # by lane
        self._lane_of: dict[Endpoint, int] = {}
        self._in_use: dict[int, int] = {}
        self._free: list[list[int]] = []  # by lane: a heap of bits' places
        self._idle: set[int] = set()
        self._block_of: list[int] = []  # by word
        self.straight = True  # every word is its block's only one, as where endpoints have one cache: bits are lanes
        self._words: list[Struct] = [Struct("<0Q")]  # by their number

    @property
    def width(self) -> int:
        """Bits of the widest mask that there may be."""
        return WORD * len(self._block_of)

    def lane(self, endpoint: Endpoint) -> int:
        """The endpoint's lane as a mask; 0 where it has no bits."""
        lane = self._lane_of.get(endpoint)
        return 0 if lane is None else 1 << lane

    def take(self, endpoint: Endpoint) -> int | None:
        """Another bit of the endpoint; None where it has too many that are not free again."""
        lane = self._lane_of.get(endpoint)
        if lane is None:
            if not self._idle:
                self._add_word(len(self._free) // WORD)
            lane = min(self._idle)
        elif not self._free[lane]:
            if self._block_of.count(lane // WORD) >= WORDS_AT_MOST:
                return None
            self._add_word(lane // WORD)
        self._idle.discard(lane)
        self._lane_of[endpoint] = lane
        self.endpoint_at[lane] = endpoint
        self._in_use[lane] = self._in_use.get(lane, 0) + 1
        return 1 << heappop(self._free[lane])

    def release(self, bit: int) -> None:
        """The endpoint has done with the bit, which masks may still have. Without any, its lane is another's."""
        lane = self._lane_at(bit)
        self._in_use[lane] -= 1
        if not self._in_use[lane]:
            del self._in_use[lane], self._lane_of[self.endpoint_at.pop(lane)]
            if self._free[lane]:
                self._idle.add(lane)

    def free(self, bit: int) -> None:
        """The bit was released, and is in no mask."""
        lane = self._lane_at(bit)
        heappush(self._free[lane], bit.bit_length() - 1)
        if lane not in self.endpoint_at:
            self._idle.add(lane)

    def fold(self, mask: int) -> int:
        """The lanes that have a bit in the mask. 24 words (256 endpoints with six caches): 3 us."""
        if self.straight:
            return mask
        if not mask & (mask - 1):
            return 1 << self._lane_at(mask) if mask else 0
        words = self._words[-(-mask.bit_length() // WORD)]
        lanes = [0] * (len(self._free) // WORD)
        for block, word in zip(self._block_of, words.unpack(mask.to_bytes(words.size, "little")), strict=False):
            if word:
                lanes[block] |= word
        return int.from_bytes(self._words[len(lanes)].pack(*lanes), "little")

    def _lane_at(self, bit: int) -> int:
        word, place = divmod(bit.bit_length() - 1, WORD)
        return self._block_of[word] * WORD + place

    def _add_word(self, block: int) -> None:
        """One more bit for each lane of a block; the block after the last one is new."""
        if block * WORD == len(self._free):
            self._free += [[] for _ in range(WORD)]
        for lane in range(block * WORD, (block + 1) * WORD):
            self._free[lane].append(self.width + lane % WORD)  # the largest of the heap: its end is its place
            if lane not in self.endpoint_at:
                self._idle.add(lane)
        self._block_of.append(block)
        self.straight = self._block_of == list(range(len(self._block_of)))
        self._words.append(Struct(f"<{len(self._block_of)}Q"))
