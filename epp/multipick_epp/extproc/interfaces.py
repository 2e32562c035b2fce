"""What one stream has around it, whoever that is: the wire below, and who counts and times."""

from enum import StrEnum
from typing import Protocol

from multipick_epp.extproc.effects import Undecided


class Transport(Protocol):
    """The wire under one stream. No call raises, also when the wire is gone."""

    def send(self, data: bytes) -> None:
        """Send one message behind those before it."""

    def end(self) -> None:
        """End the stream with status OK behind all that was sent."""

    def pause(self) -> None:
        """Take nothing more from the gateway for now: let its flow control hold it."""

    def resume(self) -> None:
        """Go on after `pause`."""


class Stage(StrEnum):
    """Where the time from a request's first byte here to its pick goes."""

    RECEIVE = "receive"  # from the first message until the picker is asked: the gateway sends the body
    PICK = "pick"  # until the picker decided
    REPLY = "reply"  # until the answer is with the transport


class Failure(StrEnum):
    """What went wrong on a stream."""

    PICK_RAISED = "pick_raised"
    PICK_TIMEOUT = "pick_timeout"
    UNREADABLE = "unreadable"  # bytes that are no message
    INTERNAL = "internal"  # a defect of ours, caught
    SILENT = "silent"  # opened, and no message came


class Observer(Protocol):
    """Who counts and times. No call raises or waits."""

    def opened(self) -> None:
        """A stream began."""

    def closed(self) -> None:
        """It ended; comes exactly once for each `opened`."""

    def stage(self, stage: Stage, seconds: float) -> None:
        """A stage of a decision took so long."""

    def failed(self, failure: Failure) -> None:
        """Something went wrong; the request goes on without a pick where that is possible."""

    def undecided(self, how: Undecided) -> None:
        """A request left without a pick."""

    def answered_here(self, reason: str) -> None:
        """A request was refused: no endpoint sees it."""
