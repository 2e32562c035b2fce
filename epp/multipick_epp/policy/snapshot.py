"""What a policy sees: columns, one row an endpoint, since a decision over 256 endpoints has 150 us."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from multipick_epp.types import Endpoint


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The candidates of one request. All columns have the length of `endpoints`."""

    prompt_tokens: int
    endpoints: Sequence[Endpoint]
    hit_tokens: Sequence[int]
    queued_tokens: Sequence[int]  # P-token's queue, reservations and unexplained load together
    in_flight: Sequence[int]  # without this request
    waiting: Sequence[float] = ()  # engine gauges of the last scrape; empty where none was made
    running: Sequence[float] = ()
    kv_usage: Sequence[float] = ()  # 0..1
    picked: Sequence[int] = ()  # requests that this picker sent there since that scrape
    turn: int = 0  # decisions that this picker has made before this one

    def new_tokens(self, row: int) -> int:
        """Prompt tokens that the endpoint would have to prefill; never 0, since the last token is always computed."""
        return max(1, self.prompt_tokens - self.hit_tokens[row])


RANKED = 16
"""Rows that a ranking needs: a reserve chooses among so many, and a request that fails goes to the next few."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows of a snapshot, best first: all, or the best `RANKED` at least."""

    rows: Sequence[int]
    scores: Sequence[float] = ()  # of each row of the snapshot, smaller is better; empty where the policy has none


Rank = Callable[[Snapshot, Random], Ranking]
"""A policy. The random source breaks ties, and makes a replay repeatable."""
