"""The words that every room shares. See DESIGN section 1: code, metrics and docs use these and no others."""

from enum import StrEnum
from typing import NamedTuple, NewType

BlockKey = NewType("BlockKey", int)
"""Our 60-bit chained hash of a block of prompt tokens and of all blocks before it."""

Endpoint = NewType("Endpoint", str)
"""`ip:port` of one model server; a data-parallel rank is an endpoint of its own."""

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
