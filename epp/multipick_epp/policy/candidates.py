"""Which candidates an atomic reserve should choose among.

`reserve` scores candidates with the shared, current loads. Sending all of a large pool costs twice the client's and
three times the server's time (at 256), so the local view, some milliseconds old, is used to send those it ranks best.
Endpoints that it believes idle, in place of the last of these, make the choice no better (`bench/state.py`, pruning).
"""

from collections.abc import Sequence

from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.marginal import marginal
from multipick_epp.policy.snapshot import RANKED, Rank, Ranking


def candidates_of(rank: Rank, ranking: Ranking) -> Sequence[int]:
    """Rows to reserve among, best first. A policy that a reserve can't score has made its choice: its first row."""
    return ranking.rows[: RANKED if rank in (lmetric, marginal) else 1]
