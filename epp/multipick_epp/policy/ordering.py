"""Scores -> ranking, the part that every policy shares."""

from collections.abc import Sequence
from random import Random

from multipick_epp.policy.snapshot import RANKED, Ranking


def smallest_first(scores: Sequence[float], rng: Random) -> Ranking:
    """The `RANKED` rows with the smallest scores, smallest first; equal scores in uniformly random order."""
    if len(scores) > RANKED:  # to order 256 rows takes three times as long as to find the best of them
        last = sorted(scores)[RANKED - 1]
        rows = [row for row, score in enumerate(scores) if score <= last]
    else:
        rows = list(range(len(scores)))
    if len({scores[row] for row in rows}) < len(rows):
        draws = {row: rng.random() for row in rows}
        rows.sort(key=draws.__getitem__)
    rows.sort(key=scores.__getitem__)  # stable: equals keep the random order
    return Ranking(rows[:RANKED], scores)
