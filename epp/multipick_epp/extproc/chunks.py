"""A chunk of a body, in and out, without the protobuf library: what comes a hundred times a request where all else
comes once.

Only the bytes that gateways really send are read here, the body and whether it ends; `read_chunk` leaves everything
else to `messages`. Of the metadata that Envoy repeats behind each chunk, only where it ends is looked at. Encoding:
protobuf.dev/programming-guides/encoding; fields: proto/ext_proc.proto.
"""

from functools import lru_cache
from typing import Final, Literal

Side = Literal["request_body", "response_body"]

_SIDES: Final[dict[int, Side]] = {0x22: "request_body", 0x2A: "response_body"}  # fields 4 and 5 of ProcessingRequest
_BODY, _END = 0x0A, 0x10  # fields 1 and 2 of HttpBody
_METADATA = 0x42  # field 8 of ProcessingRequest

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
        side = _SIDES.get(data[0])
        if side is None:
            return None
        length, at = _varint(data, 1)
        end, size, body = at + length, len(data), b""
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
    value = data[at]
    if value < 0x80:
        return value, at + 1
    byte = data[at + 1]
    if byte < 0x80:  # as most are: 128 bytes to 16 KB
        return value & 0x7F | byte << 7, at + 2
    value, shift = value & 0x7F | (byte & 0x7F) << 7, 14
    for end in range(at + 2, at + 5):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, end + 1
        shift += 7
    raise IndexError


def _length(value: int) -> bytes:
    pieces = bytearray()
    while value >= 0x80:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
