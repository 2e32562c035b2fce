"""What all parsers need to know of a body: its bounds, how to say that it can't be read, how strict to be."""

from typing import Any

# A body costs memory and time by the values in it more than by its bytes: `{},` is 3 bytes, and 72 as a Python object.
# Below SMALL_BYTES the worst body takes some 25 MB and 15 ms. The other bounds leave room for a prompt of 1M token ids,
# or for 5 MB of program text with its braces.
SMALL_BYTES = 1_000_000
MAX_BYTES = 32_000_000
MAX_CONTAINERS = 500_000
MAX_VALUES = 3_000_000


class Unreadable(Exception):  # noqa: N818  (not an error: the request is routed by load)
    """The body holds no prompt that we can read; `reason` is one of a few fixed texts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_size(body: bytes) -> None:
    """Raises `Unreadable` for a body that could take much memory or time to decode."""
    if len(body) <= SMALL_BYTES:
        return
    if len(body) > MAX_BYTES:
        raise Unreadable("too large")
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS or body.count(b",") > MAX_VALUES:
        raise Unreadable("too many values")


def lenient_int(value: Any) -> int | None:
    """A number that does not change the prompt, in any form that engines take (7, 7.0, "7"); None for all else."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def lenient_bool(value: Any) -> bool:
    """A switch that does not change the prompt, in any form that engines take; false for all else."""
    return value in (True, 1) or (isinstance(value, str) and value.lower() in ("true", "1", "yes", "on", "t", "y"))
