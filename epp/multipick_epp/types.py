"""The words that every room shares. See docs/architecture.md: code, metrics and docs use these and no others."""

from enum import StrEnum
from typing import Final, NamedTuple, NewType

BlockKey = NewType("BlockKey", int)
"""Our 60-bit chained hash of a block of prompt tokens and of all blocks before it."""

Endpoint = NewType("Endpoint", str)
"""Whose cache and load are known by themselves: `ip:port` of one model server or, where several data-parallel ranks are
behind that port, `ip:port#r` of each: `r` counts them from 0, as the server does that is told which of them to use.
"""

_RANK = "#"

ReplicaId = NewType("ReplicaId", str)
"""One running picker process; never reused."""

ReservationId = NewType("ReservationId", str)
"""One routed request, named by the picker itself: a client's request id may come twice."""


class Mode(StrEnum):
    """Residency mode: how well the index knows what an endpoint caches."""

    EXACT = "exact"  # fed by KV events without a hole
    APPROX = "approx"  # events were lost, or only our own routing history is known
    BLIND = "blind"  # no tokens or no index: load alone decides


class Load(NamedTuple):
    """What is on one endpoint now. (A tuple: a decision makes many, at half the cost of a frozen dataclass.)"""

    queued_tokens: int = 0  # prompt tokens routed there and not prefilled yet, hits not counted
    in_flight: int = 0  # requests running or waiting there
    # Of those requests in flight whose contexts are accounted for: see `state.protocol.Context`.
    context_tokens: int = 0  # their prompts' tokens, hits counted
    prefilling: int = 0  # how many of them are not prefilled yet


NO_LOAD: Final = Load()


def address_of(endpoint: Endpoint) -> Endpoint:
    """`ip:port`: what can be dialled, and comes, fails and restarts as a whole."""
    return Endpoint(endpoint.partition(_RANK)[0])


def host_of(endpoint: Endpoint) -> str:
    """`ip`, in brackets where it is one of IPv6."""
    return address_of(endpoint).rpartition(":")[0]


def rank_of(endpoint: Endpoint) -> int | None:
    """Which of the ranks behind its port it is; None where there is one only."""
    _, several, rank = endpoint.partition(_RANK)
    return int(rank) if several else None


def rank_at(address: Endpoint, rank: int) -> Endpoint:
    """One of the ranks behind a port."""
    return Endpoint(f"{address}{_RANK}{rank}")
