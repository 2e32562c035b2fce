"""Bounds on a message before it is decoded: a body may be large, nothing else.

A header of two bytes on the wire is a hundred in memory, and 128 MB of them would stop the process for seconds. So the
outermost fields of a large message are walked first, by protobuf's encoding (protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator

SMALL_BYTES = 65_536
"""A message below this is decoded without a look."""

MAX_OTHER_BYTES = 4 << 20
"""Of all that is no body: headers, metadata, attributes. Envoy's headers are 60 KB at most unless told otherwise."""

MAX_FIELDS = 64

_BODIES = (4, 5)  # `request_body` and `response_body` of a ProcessingRequest
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


class TooLarge(Exception):  # noqa: N818  (the sender's fault)
    """The message is none that a gateway would send."""


def check_size(data: bytes) -> None:
    """Raises TooLarge for a ProcessingRequest that is large by something else than a body."""
    other = 0
    for number, start, end in _fields(data, 0, len(data)):
        if number in _BODIES:
            for _ in _fields(data, start, end):
                pass
        else:
            other += end - start
    if other > MAX_OTHER_BYTES:
        raise TooLarge("more than headers and metadata may be")


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field between two places. Raises TooLarge for too many, and for what is none."""
    for _ in range(MAX_FIELDS):
        if at >= end:
            return
        tag, start = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, start)
        elif kind == _BYTES:
            length, start = _varint(data, start)
            at = start + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at = start + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise TooLarge("a field of no known kind")
        if at > end:
            raise TooLarge("a field that does not end")
        yield tag >> 3, start, at
    if at < end:
        raise TooLarge("too many fields")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = 0
    for index, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise TooLarge("a number that does not end")
