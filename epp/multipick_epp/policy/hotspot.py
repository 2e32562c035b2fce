"""The hotspot guard (section 5.2 of the paper): where multiplication fails, and what is done about it.

A prefix class are the requests that share a prefix; `x` is its share of all requests, `M` the endpoints that hold the
prefix, `n` all endpoints. While `x / (1 - x) > |M| / (n - |M|)` the class asks for more than its holders' part of the
pool, and its hits may still win every product. Phase 1 says so. Phase 2: the last of `2 |M|` requests of the class in
a row that all score best inside `M` is kept out of `M`, so that one more endpoint comes to hold the prefix.

Every prefix that `Popularity` counts is a class: under a first block that all requests share there may be a longer
prefix that is the hot one.
"""

from bisect import bisect_left
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import NamedTuple

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.popularity import WINDOW, Popularity
from multipick_epp.policy.snapshot import PrefixShare, Ranking, Snapshot

GUARDED = frozenset({"lmetric", "marginal", "lmetric-seconds"})
"""Policies that multiply: the others are what they are."""
LEAST = 100
"""Requests that must have been seen: among a handful everything is popular."""


class Hotspot(NamedTuple):
    """A class that asks for more than its holders' part of the pool."""

    prefix: PrefixShare
    hit_tokens: Sequence[int]  # of each row of the snapshot
    began: bool  # the class was not hot before
    avoid: bool  # this request is to be kept out of the holders

    @property
    def holders(self) -> AbstractSet[int]:
        """Rows of the snapshot."""
        return {row for row, hit in enumerate(self.hit_tokens) if hit >= self.prefix.tokens}


class HotspotGuard:
    """For the decisions of one picker.

    Invariant: `_in_a_row` has the classes that were hot when they were last seen; of those that have left the window
    it has none older than `WINDOW` decisions.
    """

    def __init__(self, popularity: Popularity) -> None:
        """`popularity` counts the very requests that are watched here."""
        self._popularity = popularity
        self._in_a_row: dict[int, int] = {}  # class -> requests that scored best inside M, one after another
        self._watched = 0

    def watch(self, snapshot: Snapshot, ranking: Ranking) -> Hotspot | None:
        """Look at one decision; the hot class it belongs to, if any: the shortest to be avoided, else the shortest."""
        if not ranking.rows or len(self._popularity) < LEAST:
            return None
        best, found = ranking.rows[0], None
        hits = snapshot.hit_tokens
        ascending: list[int] = []  # counts the holders of every prefix: a dozen sets of 256 rows would cost 100 us
        for prefix in snapshot.prefixes:
            holders = 1
            if is_hot(prefix.share, holders, len(hits)):  # else no number of holders is too small for it
                ascending = ascending or sorted(hits)
                holders = len(hits) - bisect_left(ascending, prefix.tokens)
            if not is_hot(prefix.share, holders, len(hits)):
                self._in_a_row.pop(prefix.key, None)
                continue
            before = self._in_a_row.get(prefix.key)
            in_a_row = (before or 0) + 1 if hits[best] >= prefix.tokens else 0
            avoid = in_a_row >= 2 * holders
            self._in_a_row[prefix.key] = 0 if avoid else in_a_row
            if found is None or (avoid and not found.avoid):
                found = Hotspot(prefix, hits, before is None, avoid)
        self._watched += 1
        if self._watched % WINDOW == 0:
            self._in_a_row = {key: count for key, count in self._in_a_row.items() if self._popularity.holds(key)}
        return found

    def is_watched(self, key: int) -> bool:
        """Whether the class was hot when a request of it was last seen."""
        return key in self._in_a_row


def is_hot(share: float, holders: int, endpoints: int) -> bool:
    """The condition `x / (1 - x) > |M| / (n - |M|)`, without division; a prefix that nobody holds is not hot yet."""
    return holders > 0 and share * (endpoints - holders) > (1 - share) * holders


def without(ranking: Ranking, holders: AbstractSet[int], rng: Random) -> Ranking:
    """The ranking of the endpoints that are not holders, by its scores where it has any; there is one at least."""
    if not ranking.scores:
        return Ranking([row for row in ranking.rows if row not in holders])
    others = [row for row in range(len(ranking.scores)) if row not in holders]
    order = smallest_first([ranking.scores[row] for row in others], rng)
    return Ranking([others[place] for place in order.rows], ranking.scores)
