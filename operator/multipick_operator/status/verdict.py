"""What a condition is judged to be."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """A condition without its times."""

    status: str  # True, False, Unknown
    reason: str
    message: str
