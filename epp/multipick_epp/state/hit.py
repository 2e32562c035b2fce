"""From blocks held by each cache to tokens that endpoints need not prefill, for all endpoints at once.

The rule of hybrid models, after vLLM's KV-cache coordinator: the hit is the longest prefix that every full-attention
group holds, lowered until each sliding-window group has the last `ceil((window - 1) / block_size)` blocks before its
end (all of them, if there are fewer). Mamba groups need the one block before it. Groups with different block sizes meet
at multiples of them all.

A block that a window lacks rules out every end up to a window's length after it. So the hit is lowered to the *first*
such block at once: the result is the longest prefix that the rule allows, whichever block is looked at first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from multipick_epp.blocks import Chains
from multipick_epp.state.caches import GPU, Caches, Window
from multipick_epp.state.lookup import SHARDS, Shards
from multipick_epp.types import BlockKey

Ring = tuple[int, int]
"""Tokens held from the start, and who holds exactly so many: bits of caches, or lanes of endpoints."""
Fold = Callable[[int], int]
"""Bits of caches -> lanes of their endpoints."""


def gpu_hits(chains: Chains, caches: Caches, rings: Sequence[Ring], shards: Shards, fold: Fold) -> Sequence[Ring]:
    """The hits of all endpoints (in lanes, shortest first) by what their full-attention caches hold (in bits)."""
    if caches.one_each and not caches.windows:
        full = caches.full.get(GPU, 0)
        return sorted([(tokens, lanes) for tokens, bits in rings if (lanes := bits & full)])
    by_full_groups = _by_full_groups(chains, caches, rings, fold)
    if not caches.windows and not caches.units:
        return by_full_groups
    hits = Hits(caches.units)
    for tokens, lanes in by_full_groups:
        hits.add(tokens, lanes)
    lacking = {
        window: Lacking(chains.by_size.get(window.block_size, ()), bits, shards, fold)
        for window, bits in caches.windows.items()
    }
    return sorted(_within_windows(hits, caches, lacking))


def beyond(gpu: Sequence[Ring], tier: Iterable[Ring]) -> Iterator[Ring]:
    """Of what a tier holds, the part that is more than the GPU's hit; both in lanes."""
    shorter = sorted(gpu)
    no_less = 0  # lanes whose hit on the GPU is so long, too
    for tokens, lanes in sorted(tier, reverse=True):
        while shorter and shorter[-1][0] >= tokens:
            no_less |= shorter.pop()[1]
        if more := lanes & ~no_less:
            yield tokens, more


class Hits:
    """Lanes by tokens, to be taken from the longest down; a hit is cut down to what the endpoint's groups can share."""

    def __init__(self, units: dict[int, int]) -> None:
        self.lanes: dict[int, int] = {}
        self._units = units
        self._order: list[int] = []

    def add(self, tokens: int, lanes: int) -> None:
        """These have a hit of at most so many tokens."""
        for unit, uneven in self._units.items():
            if tokens % unit and lanes & uneven:
                self._add(tokens - tokens % unit, lanes & uneven)
                lanes &= ~uneven
        self._add(tokens, lanes)

    def take(self) -> Iterator[Ring]:
        """The longest first, also of those that are added meanwhile."""
        self._order = [-tokens for tokens in self.lanes]
        heapify(self._order)
        while self._order:
            tokens = -heappop(self._order)
            yield tokens, self.lanes.pop(tokens)

    def _add(self, tokens: int, lanes: int) -> None:
        if not tokens or not lanes:
            return
        if tokens not in self.lanes:
            self.lanes[tokens] = 0
            heappush(self._order, -tokens)
        self.lanes[tokens] |= lanes


class Lacking(dict[int, int]):
    """By a block's place in the prompt: the lanes that lack it in a group of one window. Looked up when asked for."""

    def __init__(self, keys: Sequence[BlockKey], bits: int, shards: Shards, fold: Fold) -> None:
        super().__init__()
        self._keys = keys
        self._bits = bits
        self._shards = shards
        self._fold = fold
        self._folded: dict[int, int] = {}  # neighbours are nearly always held by the same

    def __missing__(self, place: int) -> int:
        key = self._keys[place]
        bits = self._bits & ~self._shards[key % SHARDS].get(key, 0)
        lanes = self._folded.get(bits)
        if lanes is None:
            lanes = self._folded[bits] = self._fold(bits)
        self[place] = lanes
        return lanes


def _by_full_groups(chains: Chains, caches: Caches, rings: Sequence[Ring], fold: Fold) -> Sequence[Ring]:
    """Each endpoint's shortest full-attention group decides, and the length of the chains of its sliding groups."""
    full = caches.full.get(GPU, 0)
    missing = full
    limits = [(_usable(chains, window.block_size), lanes) for window, lanes in caches.windowed.items()]
    for tokens, bits in rings:
        if bits & full:
            missing &= ~bits
            limits.append((tokens, fold(bits & full)))
    done = fold(missing)
    shortest: list[Ring] = []
    for tokens, lanes in sorted(limits):
        if new := lanes & ~done:
            shortest.append((tokens, new))
            done |= new
    return shortest


def _within_windows(hits: Hits, caches: Caches, lacking: dict[Window, Lacking]) -> Iterator[Ring]:
    for tokens, lanes in hits.take():
        for window, windowed in caches.windowed.items():
            if inside := lanes & windowed:
                lanes &= ~inside
                lanes |= _lowered(hits, window, tokens, inside, lacking[window])
        if lanes:
            yield tokens, lanes


def _lowered(hits: Hits, window: Window, tokens: int, lanes: int, lacking: Lacking) -> int:
    """Those of `lanes` whose window before `tokens` is whole; the others go to where it may be again."""
    end = tokens // window.block_size
    start = max(0, end - window.blocks)
    while 0 < start < end and lanes & lacking[start] == lanes:  # no window here is whole: on to the one before
        end, start = start, max(0, start - window.blocks)
    if end * window.block_size < tokens:
        hits.add(end * window.block_size, lanes)
        return 0
    for place in range(start, end):
        if gone := lanes & lacking[place]:
            hits.add(place * window.block_size, gone)
            lanes &= ~gone
            if not lanes:
                break
    return lanes


def _usable(chains: Chains, size: int) -> int:
    return min(chains.usable(size), len(chains.by_size.get(size, ()))) * size
