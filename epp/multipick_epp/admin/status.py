"""`GET /status`: how this picker does, in words; the operator's conditions are made of it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from multipick_epp.checks.mismatch import Mismatch
from multipick_epp.decision.hotspots import HotPrefix
from multipick_epp.types import Endpoint, Mode, ReplicaId


class EndpointCounts(msgspec.Struct, frozen=True):
    """How many endpoints."""

    ready: int
    checked: int  # ready, and their engines have answered all that they were asked
    modes: Mapping[Mode, int]  # ready, by how well the index knows their caches


class TaskFailure(msgspec.Struct, frozen=True):
    """Work beside the requests that failed in the last minute, and was started again."""

    task: str
    about: str  # what it is done for, such as an endpoint
    why: str


class WorkerCounts(msgspec.Struct, frozen=True):
    """The processes that a picker decides in, where there are several."""

    configured: int
    serving: int
    restarts: int  # of any of them


class PickerStatus(msgspec.Struct, frozen=True):
    """What one picker says of itself and of its engines."""

    replica: ReplicaId
    # why it goes by its own view, as "link: reason"; None: the shared state answers, or there is none
    state: str | None
    ingest: str | None  # why KV events don't reach the shared state; None where they do
    tokens: Literal[
        "local", "engine"
    ]  # where token ids come from: some from the pool's tokenizer here, or all from engines
    endpoints: EndpointCounts
    mismatches: Sequence[Mismatch]
    failing: Sequence[TaskFailure] = ()
    pods: str | None = None  # why the endpoints may not be those that there are; None while they are followed
    # since requests there fail: how often in a row
    left_out: Mapping[Endpoint, int] = msgspec.field(default_factory=dict)
    # what makes the ids of each kind of prompt: `tokenizers`, `template`, `harmony`, ..., or `engine`
    prompts: Mapping[str, str] = {}
    hotspots: Sequence[HotPrefix] = ()  # prefixes of which more is asked than their holders' part of the pool
    capture: str | None = None  # why own traffic is not captured; None while it is, or is not to be
    refused: Mapping[str, str] = {}  # why connections of gateways were cut in the last minutes, and whose the last was
    workers: WorkerCounts | None = None  # where there are several: the rest is the worst of what each says
