"""What all parsers need to know of a body: its bounds, how to say that it can't be read, how strict to be."""

from functools import lru_cache
from typing import Any

import msgspec

# A body costs time and memory by the values in it more than by its bytes: `{},` is 3 bytes, and as Python objects 72
# bytes and 100 ns, all of them inside one call of C that nothing can interrupt.
MAX_BYTES = 32_000_000
"""A longer body is not decoded."""

MAX_VALUES = 50_000
"""Values of a body that are decoded at most: 5 to 10 ms. Token ids are not among them: those are decoded in slices."""

SLICE_BYTES = 65_536
"""What one call looks at of a body of any shape, where calls may be slow: a millisecond or two at worst."""

LIGHT_BYTES = 16_000
LIGHT_TEXT_BYTES = 256_000
LIGHT_VALUES = 4_000

Scalar = bool | int | float | str | None
"""A field of which little matters, and which is no list or object: those would cost time to decode."""


class Unreadable(Exception):  # noqa: N818  (not an error: the request is routed by load)
    """The body holds no prompt that we can read; `reason` is one of a few fixed texts."""

    def __init__(self, reason: str, prompt_tokens: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.prompt_tokens = prompt_tokens  # that the prompt has at most, where the request tells


def is_light(body: bytes) -> bool:
    """Parsing it takes about a millisecond at most, whatever is in it."""
    return len(body) <= LIGHT_BYTES or (len(body) <= LIGHT_TEXT_BYTES and _structure(body) <= LIGHT_VALUES)


def check_values(*texts: bytes) -> None:
    """Raises `Unreadable` for JSON of more than `MAX_VALUES` values, in several texts all together; braces and commas
    inside the texts of it are none.
    """
    if sum(map(len, texts)) <= 2 * MAX_VALUES:  # a value and what parts it from the next are two bytes at least
        return
    if sum(map(_structure, texts)) <= MAX_VALUES:  # of what is inside texts, too: an upper bound, and mostly enough
        return
    left = MAX_VALUES
    for json in texts:
        left -= values_of(json)
        if left < 0:
            raise Unreadable("too many values")


def values_of(json: bytes) -> int:
    """How many values it has; more than `MAX_VALUES` where it has too many texts to tell."""
    plain = without_escapes(json)
    if count_of(b'"', plain) > 4 * MAX_VALUES:  # a name and a text for each value
        return MAX_VALUES + 1
    return _structure(outside_texts(plain))


def without_escapes(json: bytes) -> bytes:
    """The same with `__` for each escaped backslash or quote, so that a text ends at the next quote.

    Pairs of backslashes first: one that is left then escapes what follows it. All places stay what they were.
    """
    pieces = []
    start = 0
    while start < len(json):  # a single call for all could hold the process for 30 ms
        piece = json[start : start + SLICE_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # the last one escapes what comes first in the next piece
            piece = json[start : start + SLICE_BYTES + 1]
        pieces.append(piece.replace(b"\\\\", b"__").replace(b'\\"', b"__"))
        start += len(piece)
    return b"".join(pieces)


def outside_texts(plain: bytes) -> bytes:
    """JSON without escapes less its texts and names. Takes 40 ns a text, so count the quotes before."""
    return b"".join(plain.split(b'"')[::2])


def is_given(field: msgspec.Raw) -> bool:
    """Whether a field of any type is there and neither null nor empty. Looks at its first bytes only."""
    return bytes(memoryview(field)[:6]) not in (b"", b"null", b"[]", b"{}", b'""')


def count_of(characters: bytes, text: bytes) -> int:
    """How many bytes of `text` are one of `characters`. Many times faster than counting each where there are many."""
    return len(text) - len(text.translate(None, characters))


def _structure(json: bytes) -> int:
    return count_of(b"{[,", json)


def salt(cache_salt: str | None, extra_key: Scalar) -> str | None:
    """What keeps caches of equal prompts apart: vLLM's `cache_salt`, and SGLang's `extra_key` behind it."""
    if extra_key is None:
        return cache_salt
    if not isinstance(extra_key, str):
        raise Unreadable("unexpected fields")
    return (cache_salt or "") + extra_key or cache_salt


_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})


@lru_cache(maxsize=64)  # of what is neither, nothing is kept
def flag(value: Scalar) -> bool:
    """A switch in any form that engines take for true or false (pydantic's). Raises Unreadable for all else."""
    word = value.lower() if isinstance(value, str) else None
    if value in (True, 1) or word in _TRUE:
        return True
    if value in (False, 0) or word in _FALSE:
        return False
    raise Unreadable("unexpected fields")


def lenient_bool(value: Any) -> bool:
    """A switch that does not change the prompt, in any form that engines take; false for all else."""
    return value in (True, 1) or (isinstance(value, str) and value.lower() in _TRUE)
