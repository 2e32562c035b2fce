"""What the store answers, checked: everything else than the expected shape is a `LostError`, and the link begins again.

Values inside a well-formed reply may still be junk that somebody wrote: who reads them skips those one by one.
"""

import re
from typing import Any, NamedTuple, NoReturn

from multipick_epp.state.protocol import Applied
from multipick_epp.state.redis.connection import LostError
from multipick_epp.state.redis.reasons import PROTOCOL

_IDENTITY = re.compile(rb"\d{1,20}-\d{1,20}")
START = b"0-0"
"""The position before a stream's first entry."""


class Entry(NamedTuple):
    """One entry of a stream: names and values in turn, as they stand there."""

    identity: bytes
    fields: list[bytes]


def string(reply: Any) -> bytes:
    """A string that is there."""
    return reply if isinstance(reply, bytes) else _unexpected(reply)


def number(reply: Any) -> int:
    """An integer."""
    return reply if type(reply) is int else _unexpected(reply)


def listed(reply: Any, length: int | None = None) -> list[Any]:
    """A list, of that length."""
    return reply if isinstance(reply, list) and length in (None, len(reply)) else _unexpected(reply)


def at_least(reply: Any, length: int) -> list[Any]:
    """A list that a younger server may have made longer."""
    found = listed(reply)
    return found if len(found) >= length else _unexpected(reply)


def strings(reply: Any) -> list[bytes]:
    """A list of strings."""
    found: list[bytes] = listed(reply)
    return found if set(map(type, found)) <= {bytes} else _unexpected(reply)


def pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    """The fields of a hash and their values."""
    flat = strings(reply)
    return list(zip(flat[::2], flat[1::2], strict=True)) if len(flat) % 2 == 0 else _unexpected(reply)


def scanned(reply: Any) -> tuple[bytes, list[bytes]]:
    """A cursor, and what this step of a scan found."""
    cursor, found = listed(reply, 2)
    return string(cursor), strings(found)


def identity(reply: Any) -> bytes:
    """An entry's identity in its stream."""
    return reply if isinstance(reply, bytes) and _IDENTITY.fullmatch(reply) else _unexpected(reply)


def outcome(reply: Any) -> Applied:
    """What became of a delta, or of a clear."""
    try:
        return Applied(number(reply))
    except ValueError:
        _unexpected(reply)


def order(entry: bytes) -> tuple[int, int]:
    """What identities are ordered by: the server's milliseconds, and a number."""
    milliseconds, _, count = entry.partition(b"-")
    return int(milliseconds), int(count)


def news(reply: Any) -> dict[bytes, list[Entry]]:
    """What a read of streams found, by the stream's key; nothing where its time ran out."""
    if reply is None:
        return {}
    found = [listed(stream, 2) for stream in listed(reply)]
    return {string(name): [_entry(entry) for entry in listed(entries)] for name, entries in found}


def _entry(reply: Any) -> Entry:
    match reply:
        case [bytes(name), list(fields)] if _IDENTITY.fullmatch(name) and set(map(type, fields)) <= {bytes}:
            return Entry(name, fields)
    return _unexpected(reply)


def _unexpected(reply: Any) -> NoReturn:
    raise LostError(PROTOCOL, f"a reply of an unexpected shape: {type(reply).__name__}")
