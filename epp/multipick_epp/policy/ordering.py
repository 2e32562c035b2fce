"""Scores -> ranking, the part that every policy shares."""

from bisect import bisect_right
from collections.abc import Sequence
from random import Random

from multipick_epp.policy.snapshot import RANKED, Ranking


def smallest_first(scores: Sequence[float], rng: Random) -> Ranking:
    """The `RANKED` rows with the smallest scores, smallest first; equal scores in uniformly random order."""
    if len(scores) <= RANKED:
        rows = list(range(len(scores)))
    else:  # the best of some rows are no better than those of all: sorting a third costs half
        bound = sorted(scores[: 4 * RANKED])[RANKED - 1]
        rows = [row for row, score in enumerate(scores) if score <= bound]
    rows.sort(key=scores.__getitem__)
    if len(rows) > RANKED:  # whoever equals the last that is wanted may come in its place
        rows = rows[: bisect_right(rows, scores[rows[RANKED - 1]], lo=RANKED, key=scores.__getitem__)]
    if len({*map(scores.__getitem__, rows)}) < len(rows):
        draws = {row: rng.random() for row in rows}
        rows.sort(key=draws.__getitem__)
        rows.sort(key=scores.__getitem__)  # stable: equals keep the random order
    return Ranking(rows[:RANKED], scores)


def first_of_equals(scores: Sequence[float], start: int) -> Ranking:
    """As `smallest_first`, but equal scores in the order of a scan that begins at row `start` (of any size)."""
    count = len(scores)
    rows = sorted(range(count), key=lambda row: (scores[row], (row - start) % count))
    return Ranking(rows[:RANKED], scores)


def with_rest(first: Sequence[int], rest: Ranking) -> Ranking:
    """`first`, then the rows of `rest` that are not among them: a rule that names some endpoints, and one for others.

    It has no scores: there is no one figure that orders them all.
    """
    return Ranking([*first, *(row for row in rest.rows if row not in first)][:RANKED])
