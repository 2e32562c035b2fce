"""What a stream wants done, as plain values: the driver carries them out in their order."""

from dataclasses import dataclass

from multipick_epp.extproc.pick import Ended, PickRequest
from multipick_epp.types import Endpoint, ReservationId


@dataclass(frozen=True, slots=True)
class Send:
    """Say this to the gateway."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the picker, and tell the stream by `picked`."""

    request: PickRequest
    unread: bool = False  # the request has a body, and it goes on without anybody having read it


@dataclass(frozen=True, slots=True)
class Served:
    """Tell the picker who answered."""

    reservation: ReservationId
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Answered:
    """Tell the picker with which status the response began."""

    reservation: ReservationId
    status: int


@dataclass(frozen=True, slots=True)
class FirstByte:
    """Tell the picker that the response's body began."""

    reservation: ReservationId


@dataclass(frozen=True, slots=True)
class Release:
    """Tell the picker that the request is over."""

    reservation: ReservationId
    ended: Ended


@dataclass(frozen=True, slots=True)
class End:
    """End the stream in good order, after all that was sent: the gateway then goes on alone."""


Effect = Send | Ask | Served | Answered | FirstByte | Release | End
