"""What is kept of each endpoint, and of the engine behind it: which may have several data-parallel ranks, each of them
an endpoint.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.engines.models import ServedModels
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.types import Endpoint, rank_at

_PORT = re.compile(r"(tcp://.+:)([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """One endpoint: as its source describes it, or one of the ranks that its engine says it has."""

    endpoint: Endpoint
    events: str | None = None  # tcp://… of the KV-event publisher; None: asked of the engine, else by the pool's ports
    replay: str | None = None
    started_ms: int | None = None  # start of the container, where the source knows: a new one is a new epoch
    rank: int = 0  # data-parallel rank, counted over all pods of a group: by it events and metrics go


@dataclass(frozen=True, slots=True)
class Ranks:
    """The data-parallel ranks behind one port."""

    numbers: Sequence[int] = ()  # ascending, over all pods of a group; of fewer than two, there is one
    doubt: str = ""  # why nothing that is decided of this port can be exact


@dataclass(slots=True)
class Engine:
    """What is behind one port: its ranks come, fail and start anew together."""

    pod: PodEndpoint  # as its source describes it
    ranks: Ranks = field(default_factory=Ranks)
    told: bool = True  # `ranks` are those of this incarnation, or nobody asks for them
    up: bool = False  # it can serve, says whoever watches it
    incarnation: int = 0  # grows whenever the engine may be another one: it became ready, or its container was started
    served: ServedModels | None = None  # by this incarnation; None until it has said so

    @property
    def obeys(self) -> bool:
        """It serves a request by the rank that it is told, on the paths that know of ranks at all."""
        return not self.ranks.doubt


@dataclass(slots=True)
class Sent:
    """What this picker sent to an endpoint since it came."""

    requests: int = 0
    prompt_tokens: int = 0
    hit_tokens: int = 0  # of the prompt tokens, predicted as resident
    read_tokens: int = 0  # of the prompt tokens, those of prompts that were read: only they have predictions


@dataclass(slots=True)
class EndpointState:
    """What is known of one endpoint now."""

    pod: PodEndpoint
    engine: Engine  # shared by all ranks behind the port
    longest_prompt: int = 0  # tokens, of the prompts that this picker sent to this rank of this incarnation
    gauges: Gauges | None = None  # None until the first scrape
    unseen: bool = False  # its metrics have not been had for a while: the gauges are old
    unexplained: Unexplained = field(default_factory=Unexplained)
    picked: int = 0  # requests that this picker sent there since the last scrape
    sent: Sent = field(default_factory=Sent)

    @property
    def ready(self) -> bool:
        """It can serve, and how many ranks its engine has is known."""
        return self.engine.up and self.engine.told

    @property
    def incarnation(self) -> int:
        """Of its engine."""
        return self.engine.incarnation

    @property
    def served(self) -> ServedModels | None:
        """By its engine."""
        return self.engine.served


def endpoints_of(engine: Engine) -> Sequence[PodEndpoint]:
    """Its ranks, in the order in which the engine itself counts them; of an engine with one, the port as it is.

    Where the source gives a rank by the port (`ports[r]`) and the engine a number, the larger one is counted over more
    pods. Publishers that were stated are the first rank's; each other one's ports are one higher.
    """
    pod, numbers = engine.pod, engine.ranks.numbers
    if len(numbers) < 2:
        rank = max((pod.rank, *numbers))
        return [pod if rank == pod.rank else replace(pod, rank=rank)]
    return [
        replace(
            pod,
            endpoint=rank_at(pod.endpoint, index),
            events=_higher(pod.events, index),
            replay=_higher(pod.replay, index),
            rank=number,
        )
        for index, number in enumerate(numbers)
    ]


def _higher(address: str | None, by: int) -> str | None:
    """The address with its port so much higher; None where there is no such port."""
    parts = _PORT.fullmatch(address or "")
    port = int(parts[2]) + by if parts else 0
    return f"{parts[1]}{port}" if parts and 0 < port < 1 << 16 else None
