"""Why a question to an engine has no answer."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_DETAIL_CHARS: Final = 200


class Why(StrEnum):
    """The kinds, fit for a metric's label."""

    AWAY = "away"  # no connection, or it broke
    SLOW = "slow"  # no whole answer in time
    REFUSED = "refused"  # a status other than 200, redirects among them
    TOO_LONG = "too long"
    UNREADABLE = "unreadable"  # an answer that is none to this question


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No answer. `detail` is for people, short, and may hold the engine's own words."""

    why: Why
    detail: str = ""
    status: int | None = None  # the engine's HTTP status where it is why

    def __str__(self) -> str:
        return f"{self.why}: {self.detail}" if self.detail else str(self.why)


def broken(error: Exception) -> Unanswered:
    """No connection, or it failed in this way."""
    return Unanswered(Why.AWAY, (str(error) or type(error).__name__)[:_DETAIL_CHARS])


def slow(timeout_s: float) -> Unanswered:
    """The whole answer was not there by then."""
    return Unanswered(Why.SLOW, f"no answer in {timeout_s:g} s")


def refused(status: int) -> Unanswered:
    """An HTTP status other than 200."""
    return Unanswered(Why.REFUSED, f"status {status}", status)


def too_long(limit: int) -> Unanswered:
    """More than `limit` bytes."""
    return Unanswered(Why.TOO_LONG, f"more than {limit} bytes")


def no_http(why: object) -> Unanswered:
    """What came is no answer of HTTP's."""
    return Unanswered(Why.AWAY, f"no HTTP answer: {why}"[:_DETAIL_CHARS])


COMPRESSED: Final = Unanswered(Why.UNREADABLE, "compressed")
"""It is not unpacked: a small answer could be gigabytes."""
