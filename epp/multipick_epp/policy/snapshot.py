"""What a policy sees: columns, one row an endpoint, since a decision over 256 endpoints has 150 us."""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from multipick_epp.types import Endpoint


class Prefixes(msgspec.Struct, frozen=True, gc=False):
    """Prefixes of the prompt, shortest first, and how popular each is: columns."""

    tokens: Sequence[int] = ()
    keys: Sequence[int] = ()  # name them: equal keys are equal prefixes
    counts: Sequence[int] = ()  # requests among the last `requests` that have the prefix, this one included
    requests: int = 0


NO_PREFIXES = Prefixes()


def new_tokens(prompt_tokens: int, hit_tokens: int) -> int:
    """Prompt tokens that are to be prefilled where so many are a hit; never 0: the last one is always computed."""
    return max(1, prompt_tokens - hit_tokens)


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The candidates of one request. All columns have the length of `endpoints`."""

    prompt_tokens: int  # at least 1
    endpoints: Sequence[Endpoint]
    hit_tokens: Sequence[int]
    queued_tokens: Sequence[int]  # P-token's queue, reservations and unexplained load together
    in_flight: Sequence[int]  # without this request
    waiting: Sequence[float] = ()  # engine gauges of the last scrape; empty where one has none
    running: Sequence[float] = ()
    kv_usage: Sequence[float] = ()  # 0..1
    picked: Sequence[int] = ()  # requests that this picker sent there since that scrape
    turn: int = 0  # decisions that this picker has made before this one
    pickers: int = 1  # that decide by loads of their own: each knows this share of what is in flight
    # What only some policies read; empty where it is not known.
    context_tokens: Sequence[int] = ()  # prompt tokens of the requests in flight
    kv_tokens: Sequence[int] = ()  # the same, a prefix that several of them share counted once
    uncached_tokens: Sequence[int] = ()  # prompt tokens of the requests in flight that were no hits
    prefill_tokens: Sequence[int] = ()  # of these, those of requests without a first token
    prefilling: Sequence[int] = ()  # requests without a first token
    recent_tokens: Sequence[int] = ()  # prompt tokens, hits not counted, routed there in the last three minutes
    prefill_rates: Sequence[float] = ()  # tokens a second, measured; 0 before anything was
    prefixes: Prefixes = NO_PREFIXES

    def new_tokens(self, row: int) -> int:
        """Those that the endpoint would have to prefill."""
        return new_tokens(self.prompt_tokens, self.hit_tokens[row])

    def new(self) -> Sequence[int]:
        """`new_tokens` of every row."""
        length = self.prompt_tokens
        return [length - hit if hit < length else 1 for hit in self.hit_tokens]

    def contexts(self) -> Sequence[int]:
        """`context_tokens`; where they are not known, each request in flight counts as long as this one."""
        return self.context_tokens or [count * self.prompt_tokens for count in self.in_flight]


RANKED = 16
"""Rows that a ranking needs: a reserve chooses among so many, and a request that fails goes to the next few."""


class Ranking(msgspec.Struct, frozen=True, gc=False):
    """Rows of a snapshot, best first: all, or the best `RANKED` at least."""

    rows: Sequence[int]
    scores: Sequence[float] = ()  # of each row of the snapshot, smaller is better; empty where the policy has none


Rank = Callable[[Snapshot, Random], Ranking]
"""A policy. The random source breaks ties, and makes a replay repeatable."""
