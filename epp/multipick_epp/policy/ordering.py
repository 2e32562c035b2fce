"""Scores -> ranking, the part that every policy shares."""

from bisect import bisect_right
from collections.abc import Sequence
from random import Random

from multipick_epp.policy.snapshot import RANKED, Ranking


def smallest_first(scores: Sequence[float], rng: Random) -> Ranking:
    """The `RANKED` rows with the smallest scores, smallest first; equal scores in uniformly random order."""
    rows = list(range(len(scores)))
    if len(scores) > RANKED:  # the best of some rows are no better than those of all: sorting a third costs half
        bound = sorted(scores[: 4 * RANKED])[RANKED - 1]
        rows = [row for row, score in enumerate(scores) if score <= bound]
    rows.sort(key=scores.__getitem__)
    if len(rows) > RANKED:  # whoever equals the last that is wanted may come in its place
        rows = rows[: bisect_right(rows, scores[rows[RANKED - 1]], lo=RANKED, key=scores.__getitem__)]
    if len({scores[row] for row in rows}) < len(rows):
        draws = {row: rng.random() for row in rows}
        rows.sort(key=draws.__getitem__)
        rows.sort(key=scores.__getitem__)  # stable: equals keep the random order
    return Ranking(rows[:RANKED], scores)
