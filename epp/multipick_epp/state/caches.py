"""Which bit of the mirror's masks is which cache, and what a lookup needs to know of the caches at once."""

from collections.abc import Mapping, Sequence

from multipick_epp.state.mirror import indexes
from multipick_epp.state.protocol import Cache
from multipick_epp.types import Endpoint, Mode

GPU = "GPU"
CACHES_AT_MOST = 32
"""Caches of one endpoint. Hybrid models have up to a dozen groups, on a few mediums."""
MANY = 16
"""Endpoints, from which on to name them takes longer than to look up whether they have been named before."""
MASKS_AT_MOST = 64


def is_sliding(cache: Cache) -> bool:
    """A group that needs only the last blocks before the hit's end: a sliding window, or Mamba's last state."""
    return cache.window > 0 or cache.kind == "mamba"


def is_main(cache: Cache) -> bool:
    """A full-attention group on the GPU: what most endpoints have, and have one of."""
    return cache.medium == GPU and not is_sliding(cache)


class Caches:
    """Invariants: `bits`, `endpoint_at` and `of` describe the same pairs; `by_size` ORs the bits of each block size;
    `plain` ORs, by mode, the bits of the caches that decide their endpoint's hit alone.
    """

    def __init__(self) -> None:
        self.bits: dict[Cache, int] = {}
        self.endpoint_at: dict[int, Endpoint] = {}  # by the bit's index
        self.of: dict[Endpoint, dict[Cache, int]] = {}
        self.by_size: dict[int, int] = {}
        self.plain: dict[Mode, int] = dict.fromkeys(Mode, 0)
        self._modes: dict[Endpoint, Mode] = {}
        self._named: dict[int, Sequence[Endpoint]] = {}  # by mask

    def assign(self, cache: Cache, bit: int) -> int | None:
        """From now on `bit` is `cache`'s; the bit that was, if any."""
        old = self.forget(cache)
        self._named.clear()
        self.bits[cache] = bit
        self.endpoint_at[bit.bit_length() - 1] = cache.endpoint
        self.of.setdefault(cache.endpoint, {})[cache] = bit
        self.by_size[cache.block_size] = self.by_size.get(cache.block_size, 0) | bit
        self._sort_out(cache.endpoint)
        return old

    def endpoints_of(self, mask: int) -> Sequence[Endpoint]:
        """The endpoints of the caches in `mask`. Large masks come again: those of the holders of a common head."""
        named = self._named.get(mask)
        if named is None:
            named = [self.endpoint_at[index] for index in indexes(mask)]
            if len(named) >= MANY:
                if len(self._named) >= MASKS_AT_MOST:
                    self._named.clear()
                self._named[mask] = named
        return named

    def forget(self, cache: Cache) -> int | None:
        """The cache is gone; its bit, if it had one."""
        bit = self.bits.pop(cache, None)
        if bit is None:
            return None
        self._named.clear()
        del self.endpoint_at[bit.bit_length() - 1]
        self.by_size[cache.block_size] ^= bit
        if not self.by_size[cache.block_size]:
            del self.by_size[cache.block_size]
        self._make_plain(bit, None)
        del self.of[cache.endpoint][cache]
        self._sort_out(cache.endpoint)
        if not self.of[cache.endpoint]:
            del self.of[cache.endpoint]
        return bit

    def of_endpoint(self, endpoint: Endpoint) -> Mapping[Cache, int]:
        """The endpoint's caches and their bits."""
        return self.of.get(endpoint, {})

    def set_mode(self, endpoint: Endpoint, mode: Mode | None) -> None:
        """How well the endpoint is known; None: forget what was said."""
        if mode is None:
            self._modes.pop(endpoint, None)
        else:
            self._modes[endpoint] = mode
        self._sort_out(endpoint)

    def mode(self, endpoint: Endpoint) -> Mode:
        """BLIND before the first `set_mode`."""
        return self._modes.get(endpoint, Mode.BLIND)

    def _sort_out(self, endpoint: Endpoint) -> None:
        caches = self.of_endpoint(endpoint)
        for cache, bit in caches.items():
            self._make_plain(bit, self.mode(endpoint) if len(caches) == 1 and is_main(cache) else None)

    def _make_plain(self, bit: int, mode: Mode | None) -> None:
        for each in self.plain:
            self.plain[each] = self.plain[each] | bit if each is mode else self.plain[each] & ~bit
