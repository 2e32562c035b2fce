"""A chunk of a body, in and out, without the protobuf library: what comes a hundred times a request where all else
comes once.

Only the bytes that gateways really send are read here, the body and whether it ends; `read_chunk` leaves everything
else to `messages`. Of the metadata that Envoy repeats behind each chunk, only where it ends is looked at. Encoding:
protobuf.dev/programming-guides/encoding; fields: proto/ext_proc.proto.
"""

from functools import lru_cache
from struct import Struct
from typing import Final, Literal

Side = Literal["request_body", "response_body"]

_REQUEST_BODY, _RESPONSE_BODY = 0x22, 0x2A  # fields 4 and 5 of ProcessingRequest
_BODY, _END = 0x0A, 0x10  # fields 1 and 2 of HttpBody
_METADATA = 0x42  # field 8 of ProcessingRequest
_LENGTHS: Final = Struct("<xHBH").unpack_from  # of both, where each has two bytes, as between 128 bytes and 16 KB
_TWO_BYTES = 130  # a message of so many bytes, or less, has none of these

_ANSWERS: Final[dict[Side, bytes]] = {
    "request_body": b"\x1a",
    "response_body": b"\x22",
}  # 3 and 4 of ProcessingResponse
# Around it: BodyResponse.response, CommonResponse.body_mutation, BodyMutation.streamed_response; innermost first.
_AROUND: Final = (b"\x1a", b"\x1a", b"\x0a")
_ENDED: Final = b"\x10\x01"


def read_chunk(data: bytes) -> tuple[Side, bytes, bool] | None:
    """Direction, bytes and whether they are the last; None for any other message."""
    try:
        side: Side
        if data[0] == _RESPONSE_BODY:
            side = "response_body"
        elif data[0] == _REQUEST_BODY:
            side = "request_body"
        else:
            return None
        size, body = len(data), b""
        outer, field, inner = _LENGTHS(data) if size > _TWO_BYTES else (0, 0, 0)
        if outer & 0x8080 == 0x80 == inner & 0x8080 and field == _BODY:
            end = 3 + (outer & 0x7F | outer >> 1 & 0x3F80)
            at = 6 + (inner & 0x7F | inner >> 1 & 0x3F80)
            body = data[6:at]
        else:
            length, at = _varint(data, 1)
            end = at + length
            if length and data[at] == _BODY:
                length, start = _varint(data, at + 1)
                at = start + length
                body = data[start:at]
        ended = at != end
        if ended and not (at + 2 == end and data[at] == _END and data[at + 1] == 1):
            return None
        if end != size:
            if data[end] != _METADATA:
                return None
            length, at = _varint(data, end + 1)
            if at + length != size:
                return None
    except IndexError:
        return None
    return side, body, ended


def write_chunk(side: Side, data: bytes, end: bool) -> bytes:
    """A ProcessingResponse that sends this on."""
    head, tail = _around(side, len(data), end)
    return head + data + tail


@lru_cache(maxsize=1024)
def _around(side: Side, size: int, end: bool) -> tuple[bytes, bytes]:
    """What stands before and behind so many bytes: chunks of one answer have few sizes."""
    tail = _ENDED if end else b""
    head = b"\x0a" + _length(size) if size else b""
    for tag in (*_AROUND, _ANSWERS[side]):
        head = tag + _length(len(head) + size + len(tail)) + head
    return head, tail


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A length, and where it ends. Raises IndexError for one that is cut, or beyond all that may come."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for _ in range(4):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise IndexError


def _length(value: int) -> bytes:
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
