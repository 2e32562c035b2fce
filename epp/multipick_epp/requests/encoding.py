"""Bodies as engines read them: by Python's `json.loads` of bytes, which takes more than the JSON of RFC 8259.

That is UTF-8 with or without a mark, UTF-16 and UTF-32, and the numbers `NaN`, `Infinity` and `-Infinity`.
"""

import json
import re

from multipick_epp.requests.body import SLICE_BYTES, Unreadable, count_of, without_escapes

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF8_OBJECT = (b'{"', b"{ ", b"{\n", b"{\r\n")
_NO_NUMBER = re.compile(rb"-?\bInfinity\b|\bNaN\b")
_MAX_QUOTES = 200_000
_MAX_NO_NUMBERS = 1_000  # an engine's API has some ten fields of numbers


def encoding_of(body: bytes) -> str:
    """As `json.loads` tells it, by the first four bytes; at once for what begins as nearly all bodies do."""
    return "utf-8" if body.startswith(_UTF8_OBJECT) else json.detect_encoding(body)


def as_utf8(body: bytes) -> bytes:
    """The same JSON in UTF-8 without a mark; `body` itself where it is that. Raises UnicodeDecodeError."""
    encoding = encoding_of(body)
    if encoding == "utf-8":
        return body
    if encoding == "utf-8-sig":
        return body.removeprefix(_UTF8_MARK)
    return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")


def has_no_numbers(body: bytes) -> bool:
    """Whether `NaN` or `Infinity` may be in it."""
    return any(
        sign in body[start : start + SLICE_BYTES + 8]
        for start in range(0, len(body), SLICE_BYTES)
        for sign in (b"NaN", b"Infinity")
    )


def without_no_numbers(body: bytes) -> bytes:
    """The same with null for `NaN` and `Infinity` that are the request's own fields, such as its temperature.

    Raises Unreadable where they are further inside: in what a template may be given they are numbers.
    """
    plain = without_escapes(body)
    if count_of(b'"', plain) > _MAX_QUOTES:
        raise Unreadable("not JSON")
    pieces, depth, at, left = [], 0, 0, _MAX_NO_NUMBERS
    for number, part in enumerate(plain.split(b'"')):
        end = at + len(part)
        if number % 2:
            pieces.append(body[at:end])
        else:
            nulled, count = _outside(part, depth, left)
            pieces.append(nulled)
            left -= count
            depth += count_of(b"{[", part) - count_of(b"}]", part)
        at = end + 1
    return b'"'.join(pieces)


def _outside(part: bytes, depth: int, most: int) -> tuple[bytes, int]:
    """`part` lies between two texts and begins at this depth. Without the no-numbers in it, and how many those were."""
    pieces: list[bytes] = []
    at = 0
    for found in _NO_NUMBER.finditer(part):
        between = part[at : found.start()]
        depth += count_of(b"{[", between) - count_of(b"}]", between)
        if depth > 1 or len(pieces) == most:
            raise Unreadable("not JSON")
        pieces.append(between)
        at = found.end()
    return b"null".join([*pieces, part[at:]]), len(pieces)
