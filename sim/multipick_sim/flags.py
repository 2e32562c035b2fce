"""What several commands read from their command lines. What can't be is told by argparse."""

import argparse
from collections.abc import Callable

from multipick_epp.policy.registry import policy

_DIGITS = 20


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number of that range."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > _DIGITS or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return read


def above_zero(text: str) -> float:
    """Reads a number above 0."""
    value = _number(text)
    if value is None or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def up_to(high: float) -> Callable[[str], float]:
    """Reads a number above 0, up to that."""

    def read(text: str) -> float:
        value = _number(text)
        if value is None or not 0 < value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, up to {high}")
        return value

    return read


def seconds(text: str) -> float:
    """Reads a time, which may be 0."""
    return 0.0 if _number(text) == 0 else above_zero(text)


def _number(text: str) -> float | None:
    """None for what is none."""
    try:
        return float(text)
    except ValueError:
        return None


def policies(text: str) -> tuple[str, ...]:
    """Reads names of policies, each once."""
    found = tuple(part.strip() for part in text.split(","))
    for each in found:
        try:
            policy(each)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError("a policy is named twice")
    return found
