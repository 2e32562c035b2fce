"""What a stream wants done, as plain values: the driver carries them out in their order."""

from enum import StrEnum
from typing import final

import msgspec

from multipick_epp.extproc.pick import Ended, Picker, PickRequest
from multipick_epp.extproc.usage import Usage
from multipick_epp.types import Endpoint, ReservationId


@final
class Send(msgspec.Struct, frozen=True):
    """Say this to the gateway."""

    data: bytes


@final
class Ask(msgspec.Struct, frozen=True):
    """Ask the picker, and tell the stream by `picked`."""

    request: PickRequest
    unread: bool = False  # the request has a body, and it goes on without anybody having read it


@final
class Check(msgspec.Struct, frozen=True):
    """Look through the body of a request that was picked by its headers, and tell the stream by `checked`."""

    path: str
    body: bytes
    unread: bool = False  # it is too much to be looked at, and goes on as it is


class Undecided(StrEnum):
    """How a request came to leave without a pick."""

    SERVED = "served"  # an endpoint answered that nobody picked: the gateway chose by itself
    LEFT = "left"  # the gateway ended the stream before the pick: its client left, or it goes on without us


@final
class Missed(msgspec.Struct, frozen=True):
    """Count a request that left undecided."""

    how: Undecided


@final
class Refused(msgspec.Struct, frozen=True):
    """Count a request that was answered here."""

    reason: str


class Told(msgspec.Struct, frozen=True):
    """Tell the picker what became of what it reserved."""

    reservation: ReservationId

    def tell(self, picker: Picker) -> None:
        """Do so."""
        raise NotImplementedError


class Served(Told, frozen=True):
    """Who answered."""

    endpoint: Endpoint

    def tell(self, picker: Picker) -> None:
        """As `Told.tell`."""
        picker.served(self.reservation, self.endpoint)


class Answered(Told, frozen=True):
    """With which status the response began."""

    status: int

    def tell(self, picker: Picker) -> None:
        """As `Told.tell`."""
        picker.answered(self.reservation, self.status)


class FirstByte(Told, frozen=True):
    """The response's body began."""

    def tell(self, picker: Picker) -> None:
        """As `Told.tell`."""
        picker.first_byte(self.reservation)


class Counted(Told, frozen=True):
    """How many tokens the request had, as the engine told; comes before `Release`."""

    usage: Usage

    def tell(self, picker: Picker) -> None:
        """As `Told.tell`."""
        picker.counted(self.reservation, self.usage)


class Release(Told, frozen=True):
    """The request is over."""

    ended: Ended

    def tell(self, picker: Picker) -> None:
        """As `Told.tell`."""
        picker.release(self.reservation, self.ended)


@final
class End(msgspec.Struct, frozen=True):
    """End the stream in good order, after all that was sent: the gateway then goes on alone."""


Effect = Send | Ask | Check | Missed | Refused | Told | End
