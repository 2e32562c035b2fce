"""Which candidates an atomic reserve should choose among.

`reserve` scores candidates with the shared, current loads. Sending all of a large pool costs twice the client's and
three times the server's time (at 256), so the local view, some milliseconds old, is used to send few: those it ranks
best, and those it believes least loaded, in case the best ones were taken meanwhile.
"""

from heapq import nsmallest

from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.snapshot import Rank, Ranking, Snapshot

BEST = 12
LEAST_LOADED = 4


def contenders(rank: Rank, snapshot: Snapshot, ranking: Ranking) -> list[int]:
    """Rows to reserve among, best first. A policy other than `lmetric` has made its choice: its first row alone."""
    if rank is not lmetric:
        return list(ranking.rows[:1])
    rows = ranking.rows
    if len(rows) <= BEST + LEAST_LOADED:
        return list(rows)
    best = list(rows[:BEST])
    in_flight = snapshot.in_flight
    return best + nsmallest(LEAST_LOADED, rows[BEST:], key=in_flight.__getitem__)
