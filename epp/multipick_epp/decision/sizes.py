"""Which block sizes a prompt is hashed for. To hash it takes time with each block, so a small size costs most.

What most endpoints have is hashed whatever it costs. What few have must not make every request slow: one endpoint that
says `block_size="1"` would add 32,000 keys to a prompt of 32,000 tokens. Endpoints left out hold nothing, as far as
lookups know, and decisions for them are `blind`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

SIZES_AT_MOST = 4
RARE_COST_AT_MOST = 3
"""What the sizes of few endpoints may cost together, in what the sizes of most cost."""
TOLD_AT_MOST = 16


class HashedSizes:
    """The sizes to hash for now, by how many endpoints say that they have them; warns once of each that is left out."""

    def __init__(self, *sources: Callable[[], Mapping[int, int]]) -> None:
        """Each source: block size -> endpoints."""
        self._sources = sources
        self._told: set[int] = set()
        self._heard: list[Mapping[int, int]] = []
        self._hashed: Sequence[int] = ()

    def __call__(self) -> Sequence[int]:
        """The sizes, ascending."""
        heard = [source() for source in self._sources]
        if heard != self._heard:
            self._heard, self._hashed = heard, self._look(heard)
        return self._hashed

    def _look(self, heard: Sequence[Mapping[int, int]]) -> Sequence[int]:
        endpoints: Counter[int] = Counter()
        for counts in heard:
            endpoints.update(counts)
        hashed = hashed_sizes(endpoints)
        for size in endpoints.keys() - self._told - set(hashed):
            if len(self._told) < TOLD_AT_MOST:
                self._told.add(size)
                log.warning(
                    "prompts are not hashed for a block size: too few endpoints have it for what it costs",
                    extra={"block_size": size, "endpoints": endpoints[size], "hashed": list(hashed)},
                )
        return hashed


def hashed_sizes(endpoints: Mapping[int, int]) -> Sequence[int]:
    """Of the block sizes, with how many endpoints have each, those that are worth hashing, ascending.

    First those that at least half as many have as have the commonest, then the rarer ones that are not too small for
    `RARE_COST_AT_MOST`; the commonest and then the largest first, `SIZES_AT_MOST` in all.
    """
    most = max(endpoints.values(), default=0)
    common_cost = rare_cost = 0.0  # hashes a token
    hashed: list[int] = []
    for size in sorted(endpoints, key=lambda size: (-endpoints[size], -size)):
        if 2 * endpoints[size] >= most:
            common_cost += 1 / size
        elif rare_cost + 1 / size <= RARE_COST_AT_MOST * common_cost:
            rare_cost += 1 / size
        else:
            continue
        hashed.append(size)
        if len(hashed) == SIZES_AT_MOST:
            break
    return sorted(hashed)
