"""Why a request went where it went: the last decisions, kept for people who ask."""

import time
from collections import deque
from collections.abc import Sequence
from itertools import repeat

import msgspec

from multipick_epp.decision.choice import Choice
from multipick_epp.extproc.pick import Ended, PickRequest
from multipick_epp.policy.snapshot import new_tokens
from multipick_epp.state.protocol import Reserved
from multipick_epp.types import Endpoint, Mode, ReservationId

KEPT = 4096
"""Decisions; of a busy pool some seconds, of most pools minutes. About 2 KB each."""
SHOWN = 8
"""Endpoints that are shown of a decision: the best ones, and the chosen one."""
ID_CHARACTERS = 128
"""Of a request's own id; what is longer is no id."""


class Considered(msgspec.Struct, frozen=True):
    """One endpoint as the decision saw it."""

    endpoint: Endpoint
    hit_tokens: int
    new_tokens: int  # of the prompt, to be prefilled there
    queued_tokens: int
    in_flight: int  # requests, without this one
    score: float | None  # smaller is better; None: the policy has none


class Explained(msgspec.Struct, frozen=True):
    """One decision, as `GET /explain/ID` tells it."""

    request: str | None  # its x-request-id
    reservation: ReservationId
    at: float  # Unix time, seconds
    policy: str
    mode: Mode
    prompt_tokens: int
    endpoint: Endpoint
    why: str
    considered: Sequence[Considered]  # best first, of `endpoints`
    endpoints: int
    charged_tokens: int  # reserved there, as new tokens of this request
    queued_before: int  # tokens, by the state that was charged: newer than the view that ranked
    in_flight_before: int
    first_byte_s: float | None  # after the decision
    ended: str | None
    ended_s: float | None


class Decision(msgspec.Struct):
    """One decision, and what became of it. Kept as it comes: few are ever asked for."""

    request: str | None
    reservation: ReservationId
    at: float  # Unix time, seconds
    since: float  # the same moment by the clock that is never set
    mode: Mode
    fallback: str | None  # why the prompt is not known
    kept_out_of: int  # holders of a hot prefix; 0: none was
    prompt_tokens: int
    endpoint: Endpoint
    # Columns, a row an endpoint that is shown, best first.
    shown: Sequence[Endpoint]
    hit_tokens: Sequence[int]
    queued_tokens: Sequence[int]
    in_flight: Sequence[int]
    scores: Sequence[float]  # empty: the policy has none
    endpoints: int
    reserved: Reserved
    first_byte_s: float | None = None
    ended: Ended | None = None
    ended_s: float | None = None

    def first_byte(self) -> None:
        """The response's body began."""
        self.first_byte_s = time.monotonic() - self.since

    def end(self, ended: Ended) -> None:
        """The request is over."""
        self.ended, self.ended_s = ended, time.monotonic() - self.since


class Decisions:
    """The last `KEPT` decisions of this picker."""

    def __init__(self, policy_name: str) -> None:
        self._policy = policy_name
        self._kept: deque[Decision] = deque(maxlen=KEPT)

    def made(
        self,
        request: PickRequest,
        reservation: ReservationId,
        choice: Choice,
        reserved: Reserved,
        mode: Mode,
        fallback: str | None,
    ) -> Decision:
        """Remember one; the answer is told what becomes of it."""
        chosen = choice.rows[reserved.index]
        rows = choice.rows[:SHOWN]
        if chosen not in rows:
            rows = (*rows, chosen)
        snapshot, scores = choice.snapshot, choice.ranking.scores
        name = request.headers.get("x-request-id")
        decision = Decision(
            name if name is not None and len(name) <= ID_CHARACTERS else None,
            reservation,
            time.time(),
            time.monotonic(),
            mode,
            fallback,
            0 if choice.kept_out is None else choice.kept_out.holders,
            snapshot.prompt_tokens,
            snapshot.endpoints[chosen],
            [*map(snapshot.endpoints.__getitem__, rows)],
            [*map(snapshot.hit_tokens.__getitem__, rows)],
            [*map(snapshot.queued_tokens.__getitem__, rows)],
            [*map(snapshot.in_flight.__getitem__, rows)],
            [*map(scores.__getitem__, rows)] if scores else (),
            len(snapshot.endpoints),
            reserved,
        )
        self._kept.append(decision)
        return decision

    def find(self, name: str) -> Explained | None:
        """The last decision about the request of this `x-request-id`, or the one of this reservation."""
        for kept in reversed(self._kept):
            if name in (kept.request, kept.reservation):
                return self._explained(kept)
        return None

    def _explained(self, kept: Decision) -> Explained:
        considered = _considered(kept)
        return Explained(
            kept.request,
            kept.reservation,
            kept.at,
            self._policy,
            kept.mode,
            kept.prompt_tokens,
            kept.endpoint,
            _why(kept, considered[kept.shown.index(kept.endpoint)]),
            considered,
            kept.endpoints,
            kept.reserved.new_tokens,
            kept.reserved.load.queued_tokens,
            kept.reserved.load.in_flight,
            kept.first_byte_s,
            None if kept.ended is None else kept.ended.name.lower(),
            kept.ended_s,
        )


def _considered(kept: Decision) -> Sequence[Considered]:
    columns = zip(kept.shown, kept.hit_tokens, kept.queued_tokens, kept.in_flight, strict=True)
    scores = kept.scores or repeat(None)
    return [
        Considered(endpoint, hit_tokens, new_tokens(kept.prompt_tokens, hit_tokens), queued_tokens, in_flight, score)
        for (endpoint, hit_tokens, queued_tokens, in_flight), score in zip(columns, scores, strict=False)
    ]


def _why(kept: Decision, chosen: Considered) -> str:
    if kept.fallback is not None:
        return f"by load alone, since its prompt is not known ({kept.fallback})"
    if kept.endpoints == 1:
        return "the only endpoint that it could go to"
    if kept.kept_out_of:
        return f"kept out of the {kept.kept_out_of} holders of a hot prefix, so that one more comes to hold it"
    if kept.reserved.new_tokens < chosen.new_tokens:
        return "an equal prompt had just been sent there: its blocks will be resident"
    if kept.reserved.index:
        return "the best by the loads at the moment of the reserve, which had changed since the view that ranked"
    return "the best of all endpoints by the policy"
