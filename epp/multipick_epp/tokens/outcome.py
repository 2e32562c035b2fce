"""What becomes of a prompt that has no token ids."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Untokenised:
    """No token ids; `reason` is one of a few fixed texts (fit for a metric's label), never the client's own words."""

    reason: str


class NoText(Exception):  # noqa: N818  (no error of ours: mostly the engine refuses such a request too)
    """Why a prompt has no token ids; `reason` as in `Untokenised`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
