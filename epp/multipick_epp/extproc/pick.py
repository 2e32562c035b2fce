"""What the stream asks of the picker, as plain values: the seam between `extproc/` and the decision."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Protocol, final

import msgspec

from multipick_epp.extproc.usage import Usage
from multipick_epp.types import Endpoint, ReservationId


class PickRequest(msgspec.Struct, frozen=True):
    """One HTTP request that wants an endpoint."""

    method: str
    path: str  # with the query string
    headers: Mapping[str, str]  # lower-case names; of a repeated header the first
    body: bytes | None = None  # the whole body; None for a request without one, and for one too large to read
    body_bytes: int = 0  # its size, also where `body` is None
    subset: tuple[str, ...] | None = None  # the gateway's subset hint: `ip:port` or `ip`; None = the whole pool


class Pick(msgspec.Struct, frozen=True):
    """Where to send the request: the first endpoint, the others in order if that one fails."""

    endpoints: tuple[Endpoint, ...]
    reservation: ReservationId | None = None  # None: nothing was charged
    request_headers: Mapping[str, str] = msgspec.field(default_factory=dict)  # set on the way to the endpoint
    response_headers: Mapping[str, str] = msgspec.field(default_factory=dict)  # set on the way to the client
    body: bytes | None = None  # replaces the request's body where not None
    counts: bool = False  # the picker wants to know what the engine tells of its tokens


@final
class NoPick(msgspec.Struct, frozen=True):
    """The request is answered here: an error in the shape of the API that the client called."""

    status: int
    body: bytes
    reason: str  # for `x-multipick-drop-reason` and the metrics
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Ended(Enum):
    """How a request ended, as far as the gateway tells."""

    WHOLE = auto()  # the response passed to its end
    CLOSED = auto()  # it had begun, and the gateway closed the stream: at its end, or since the client left
    ABORTED = auto()  # it had not begun
    UNSEEN = auto()  # it goes on where we can't see it: this gateway asks, and shows no response
    FAILED = auto()  # the endpoint failed: whatever it answered, it did not compute the prompt


class Picker(Protocol):
    """What a stream calls, in this order; after `pick`, each call names the reservation that `pick` gave."""

    async def pick(self, request: PickRequest) -> Pick | NoPick:
        """Choose and reserve. Never raises but CancelledError, after which nothing is reserved."""

    def served(self, reservation: ReservationId, address: Endpoint) -> None:
        """The gateway sent the request to `address` in the end: the reservation moves there."""

    def answered(self, reservation: ReservationId, status: int) -> None:
        """The response began with this HTTP status; `served` has told by whom, if the gateway says so."""

    def first_byte(self, reservation: ReservationId) -> None:
        """The first byte of the response's body passed: prefill is over."""

    def counted(self, reservation: ReservationId, usage: Usage) -> None:
        """The request had so many tokens, as its engine told."""

    def release(self, reservation: ReservationId, ended: Ended) -> None:
        """The request ended, well or not. Called exactly once for each reservation."""
