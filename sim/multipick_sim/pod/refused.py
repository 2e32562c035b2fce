"""An error that a request is answered with, as vLLM words it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """An error for the client."""

    status: int
    kind: str
    message: str
    parameter: str | None = None


def bad_request(message: str, parameter: str | None = None) -> Refused:
    """A request that is wrong, or that a simulated engine can't answer."""
    return Refused(400, "BadRequestError", message, parameter)
