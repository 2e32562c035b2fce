"""What all parsers need to know of a body: its bounds, and how to say that it can't be read."""

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
