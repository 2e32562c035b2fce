"""What is on the wire: frame types, flags, settings and error codes of RFC 9113, and how to write each frame."""

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = Struct(">BHBBL")  # the length in two parts, type, flags, stream
HEADER_BYTES: Final = HEADER.size
FRAME_BYTES: Final = 16_384  # the largest payload that we take: the protocol's default, which we don't change
WINDOW_MAX: Final = (1 << 31) - 1
WINDOW_DEFAULT: Final = 65_535
STREAM_MASK: Final = (1 << 31) - 1  # the reserved bit is ignored

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20


class Setting(IntEnum):
    """Names of settings."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Why a stream or a connection ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class PeerError(Exception):
    """The peer broke a rule in a way that ends the connection."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class StreamError(Exception):
    """The peer broke a rule in a way that ends one stream."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    return HEADER.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    pairs = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in values.items())
    return frame(SETTINGS, 0, 0, pairs)


def rst_stream(stream: int, code: Code) -> bytes:
    """Ends one stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: Code, why: str = "") -> bytes:
    """No stream above `last` is or will be answered."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode())


def ping(payload: bytes) -> bytes:
    """A question for a sign of life; 8 bytes."""
    return frame(PING, 0, 0, payload)


def window_update(stream: int, credit: int) -> bytes:
    """More may be sent; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, credit.to_bytes(4, "big"))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def expect(true: bool, why: str, code: Code = Code.PROTOCOL_ERROR) -> None:
    """Raises PeerError unless it is so."""
    if not true:
        raise PeerError(code, why)


def number_of(payload: bytes) -> int:
    """A stream or a size: 31 bits."""
    return int.from_bytes(payload, "big") & STREAM_MASK


def unpadded(payload: bytes) -> bytes:
    """The payload of a frame with padding. Raises PeerError."""
    expect(len(payload) > 0, "no padding length", Code.FRAME_SIZE_ERROR)
    end = len(payload) - payload[0]
    expect(end >= 1, "more padding than frame")
    return payload[1:end]
