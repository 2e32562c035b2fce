"""Scores -> ranking, the part that every policy shares."""

from collections.abc import Sequence
from random import Random

from multipick_epp.policy.snapshot import Ranking


def smallest_first(scores: Sequence[float], rng: Random) -> Ranking:
    """Rows by score, smallest first; equal scores in uniformly random order."""
    rows = list(range(len(scores)))
    if len(set(scores)) < len(rows):  # drawing lots takes longer than all the rest
        draws = [rng.random() for _ in rows]
        rows.sort(key=draws.__getitem__)
    rows.sort(key=scores.__getitem__)  # stable: equals keep the random order
    return Ranking(rows, scores)
