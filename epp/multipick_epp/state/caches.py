"""Which bit of the mirror's masks is which cache, and what a lookup needs to know of all caches at once."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import lcm
from typing import NamedTuple, TypeVar

from multipick_epp.state.cache import Cache
from multipick_epp.state.lanes import Lanes
from multipick_epp.state.mirror import indexes
from multipick_epp.types import Endpoint, Mode, address_of

GPU = "GPU"
CACHES_AT_MOST = 32
"""Caches of one endpoint. Hybrid models have up to a dozen groups, on a few mediums."""
WINDOWS_AT_MOST = 4
"""Different windows of one endpoint's groups. Models have one or two; each costs a walk of its own."""
MANY = 16
"""Endpoints, from which on to name them takes longer than to look up whether they have been named before."""
MASKS_AT_MOST = 64

Key = TypeVar("Key")


class Window(NamedTuple):
    """What groups of one kind need besides the full-attention groups' hit."""

    block_size: int  # tokens
    blocks: int  # before the hit's end


def is_sliding(cache: Cache) -> bool:
    """A group that needs only the last blocks before the hit's end: a sliding window, or Mamba's last state."""
    return cache.window > 0 or cache.kind == "mamba"


def is_main(cache: Cache) -> bool:
    """A full-attention group on the GPU: what most endpoints have, and have one of."""
    return cache.medium == GPU and not is_sliding(cache)


def window_of(cache: Cache) -> Window:
    """The window of a sliding group: `ceil((window - 1) / block_size)` blocks; one for Mamba."""
    return Window(cache.block_size, -(-(cache.window - 1) // cache.block_size) if cache.window > 0 else 1)


def bound_of(caches: Collection[Cache], cache: Cache) -> str:
    """The bound that `cache` would go beyond, besides those that its endpoint has; "" for none."""
    if cache in caches:
        return ""
    if len(caches) >= CACHES_AT_MOST:
        return f"more than {CACHES_AT_MOST} caches"
    windows = {window_of(each) for each in [*caches, cache] if is_sliding(each)}
    return f"more than {WINDOWS_AT_MOST} windows" if len(windows) > WINDOWS_AT_MOST else ""


class Caches:
    """Invariants: `bits` and `of` describe the same pairs. The sums OR the bits of some caches, or the lanes of some
    endpoints; none is 0.
    """

    def __init__(self, lanes: Lanes, weights: Mapping[str, float]) -> None:
        """`weights`: of the mediums that count besides the GPU."""
        self.bits: dict[Cache, int] = {}
        self.of: dict[Endpoint, dict[Cache, int]] = {}
        self.engines: Counter[int] = Counter()  # by the block sizes of their caches; with however many ranks
        self.deep: dict[int, int] = {}  # those whose depth counts, by block size
        self.full: dict[str, int] = {}  # the same by medium
        self.windows: dict[Window, int] = {}  # bits of sliding groups on the GPU
        self.windowed: dict[Window, int] = {}  # lanes with such a group
        self.units: dict[int, int] = {}  # lanes whose GPU groups differ in block size, by the tokens where they meet
        self.mode_of: dict[Endpoint, Mode] = {}  # as it was set
        self.block_size_of: dict[Endpoint, int] = {}  # tokens a block of the endpoint's main cache
        self._lanes = lanes
        self._weights = weights
        self._sizes: Counter[tuple[Endpoint, int]] = Counter()  # caches, by engine and block size
        self._named: dict[tuple[int, int], dict[Endpoint, int]] = {}  # by lanes and their hit

    def has_room(self, cache: Cache) -> bool:
        """Whether the endpoint may have this cache besides those it has."""
        return not bound_of(self.of_endpoint(cache.endpoint), cache)

    def assign(self, cache: Cache, bit: int) -> None:
        """From now on `bit` is `cache`'s, which has none."""
        self.bits[cache] = bit
        self.of.setdefault(cache.endpoint, {})[cache] = bit
        self._count(cache, 1)
        self._toggle(cache, bit)
        self._sort_out(cache.endpoint)

    def forget(self, cache: Cache) -> int | None:
        """The cache is gone; its bit, if it had one."""
        bit = self.bits.pop(cache, None)
        if bit is None:
            return None
        del self.of[cache.endpoint][cache]
        if not self.of[cache.endpoint]:
            del self.of[cache.endpoint]
        self._count(cache, -1)
        self._toggle(cache, bit)
        self._sort_out(cache.endpoint)
        return bit

    @property
    def on_gpu(self) -> int:
        """The bits of all caches on the GPU."""
        return self.full.get(GPU, 0) | sum(self.windows.values())

    @property
    def one_each(self) -> bool:
        """No endpoint has several caches, so its bit is its lane."""
        return self._lanes.straight

    def endpoints_of(self, lanes: int) -> Sequence[Endpoint]:
        """The endpoints of some lanes."""
        if not lanes & (lanes - 1):  # one, as most that hold more than a common head
            return (self._lanes.endpoint_at[lanes.bit_length() - 1],)
        return [self._lanes.endpoint_at[lane] for lane in indexes(lanes)]

    def named(self, lanes: int, tokens: int) -> dict[Endpoint, int]:
        """The same with a hit of so many tokens. Large sets come again: the holders of a common head."""
        if not lanes & (lanes - 1):
            return dict.fromkeys(self.endpoints_of(lanes), tokens)
        known = self._named.get((lanes, tokens))
        if known is not None:
            return known.copy()
        named = dict.fromkeys(self.endpoints_of(lanes), tokens)
        if len(named) >= MANY:
            if len(self._named) >= MASKS_AT_MOST:
                self._named.clear()
            self._named[lanes, tokens] = named.copy()
        return named

    def of_endpoint(self, endpoint: Endpoint) -> Mapping[Cache, int]:
        """The endpoint's caches and their bits."""
        return self.of.get(endpoint, {})

    def set_mode(self, endpoint: Endpoint, mode: Mode | None) -> None:
        """How well the endpoint is known; None: forget what was said."""
        if mode is None:
            self.mode_of.pop(endpoint, None)
        else:
            self.mode_of[endpoint] = mode
        self._sort_out(endpoint)

    def _count(self, cache: Cache, more: int) -> None:
        size = cache.block_size
        of_engine = address_of(cache.endpoint), size
        before, after = self._sizes[of_engine], self._sizes[of_engine] + more
        _set(self._sizes, of_engine, after)
        _set(self.engines, size, self.engines[size] + bool(after) - bool(before))

    def _toggle(self, cache: Cache, bit: int) -> None:
        """Put the bit into the sums where it belongs, or take it out of them."""
        if not is_sliding(cache):
            if cache.medium == GPU or self._weights.get(cache.medium):
                _toggle(self.deep, cache.block_size, bit)
                _toggle(self.full, cache.medium, bit)
        elif cache.medium == GPU:
            window = window_of(cache)
            _toggle(self.windows, window, bit)
            self.windowed[window] = self._lanes.fold(self.windows.get(window, 0))
            if not self.windowed[window]:
                del self.windowed[window]

    def _sort_out(self, endpoint: Endpoint) -> None:
        """The endpoint's caches or its mode have changed: put its lane into the sums that it belongs to."""
        self._named.clear()
        lane = self._lanes.lane(endpoint)
        caches = self.of_endpoint(endpoint)
        main = next((cache.block_size for cache in caches if is_main(cache)), None)
        if main is None:
            self.block_size_of.pop(endpoint, None)
        else:
            self.block_size_of[endpoint] = main
        sizes = {cache.block_size for cache in caches if cache.medium == GPU}
        _put(self.units, lcm(*sizes) if len(sizes) > 1 else None, lane)


def _toggle(sums: dict[Key, int], key: Key, bit: int) -> None:
    _set(sums, key, sums.get(key, 0) ^ bit)


def _put(sums: dict[Key, int], key: Key | None, lane: int) -> None:
    """Into the sum of `key`, and into no other."""
    for each in [each for each, lanes in sums.items() if lanes & lane]:
        _toggle(sums, each, lane)
    if key is not None and lane:
        sums[key] = sums.get(key, 0) | lane


def _set(sums: dict[Key, int], key: Key, value: int) -> None:
    """None of the sums is 0."""
    if value:
        sums[key] = value
    else:
        sums.pop(key, None)
