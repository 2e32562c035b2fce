"""The hotspot guard (section 5.2 of the paper): where multiplication fails, and what is done about it.

A prefix class are the requests that share a prefix; `x` is its share of all requests, `M` the endpoints that hold the
prefix, `n` all endpoints. While `x / (1 - x) > |M| / (n - |M|)` the class asks for more than its holders' part of the
pool, and its hits may still win every product. Phase 1 says so. Phase 2: the last of `2 |M|` requests of the class in
a row that all score best inside `M` is kept out of `M`, so that one more endpoint comes to hold the prefix.

Every prefix that `Popularity` counts is a class, unless all its requests share a longer one that anybody holds: under a
first block that everybody has there may be a longer prefix that is the hot one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.popularity import WINDOW, Popularity
from multipick_epp.policy.snapshot import Ranking, Snapshot

GUARDED = frozenset({"lmetric", "marginal", "lmetric-seconds"})
"""Policies that multiply: the others are what they are."""
LEAST = 100
"""Requests that must have been seen: among a handful everything is popular."""


class Hotspot(NamedTuple):
    """A class that asks for more than its holders' part of the pool."""

    key: int  # of its prefix
    tokens: int
    share: float  # of the last requests, 0..1
    holders: int
    hit_tokens: Sequence[int]  # of each row of the snapshot
    began: bool  # the class was not hot before
    avoid: bool  # this request is to be kept out of the holders

    def others(self, rows: Iterable[int]) -> Sequence[int]:
        """Those of some rows of the snapshot that don't hold the prefix."""
        hits, tokens = self.hit_tokens, self.tokens
        return [row for row in rows if hits[row] < tokens]

    @property
    def holder_rows(self) -> Sequence[int]:
        """The rows that hold it."""
        return [row for row, hit in enumerate(self.hit_tokens) if hit >= self.tokens]


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
        requests = snapshot.prefixes.requests
        if not ranking.rows or requests < LEAST:
            return None
        hits, found = snapshot.hit_tokens, None
        best_hit, endpoints = hits[ranking.rows[0]], len(hits)
        ascending: list[int] = []  # counts the holders of every prefix: a dozen sets of 256 rows would cost 100 us
        prefixes = snapshot.prefixes
        longer = ((*prefixes.tokens[1:], 0), (*prefixes.counts[1:], 0))
        columns = (prefixes.tokens, prefixes.keys, prefixes.counts)
        for tokens, key, count, next_tokens, next_count in zip(*columns, *longer, strict=False):
            holders = 0
            if count * endpoints > requests:  # else one holder is enough for it
                ascending = ascending or sorted(hits)
                if count > next_count or next_tokens > ascending[-1]:  # else its requests are the next one's class
                    holders = endpoints - bisect_left(ascending, tokens)
            if not holders or not is_hot(count, requests, holders, endpoints):
                self._in_a_row.pop(key, None)
                continue
            before = self._in_a_row.get(key)
            in_a_row = (before or 0) + 1 if best_hit >= tokens else 0
            avoid = in_a_row >= 2 * holders
            self._in_a_row[key] = 0 if avoid else in_a_row
            if found is None or (avoid and not found.avoid):
                found = Hotspot(key, tokens, count / requests, holders, hits, before is None, avoid)
        self._watched += 1
        if self._watched % WINDOW == 0:
            self._in_a_row = {key: count for key, count in self._in_a_row.items() if self._popularity.holds(key)}
        return found

    def is_watched(self, key: int) -> bool:
        """Whether the class was hot when a request of it was last seen."""
        return key in self._in_a_row


def is_hot(count: int, requests: int, holders: int, endpoints: int) -> bool:
    """The condition `x / (1 - x) > |M| / (n - |M|)`, which is `x n > |M|`, in whole numbers: `x` is count / requests.

    A prefix that nobody holds is not hot yet.
    """
    return 0 < holders * requests < count * endpoints


def without(ranking: Ranking, hotspot: Hotspot, rng: Random) -> Ranking:
    """The ranking of the endpoints that are not holders, by its scores where it has any; empty if all are."""
    rest = hotspot.others(ranking.rows)
    if not ranking.scores or 2 * len(rest) >= len(ranking.rows):
        return Ranking(rest, ranking.scores)
    others = hotspot.others(range(len(ranking.scores)))  # most of the best were holders: there are more to be ranked
    order = smallest_first([ranking.scores[row] for row in others], rng)
    return Ranking([others[place] for place in order.rows], ranking.scores)
