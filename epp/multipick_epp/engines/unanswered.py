"""Why a question to an engine has no answer."""

from dataclasses import dataclass
from enum import StrEnum


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
