"""gRPC over HTTP/2: messages cut out of DATA frames, and the block that ends a call."""

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from struct import Struct
from typing import Final

from multipick_epp.extproc.http2.headers import GRPC_RESPONSE, Request, literal

PREFIX: Final = Struct(">BL").unpack_from  # a message's flag (compressed) and length
PREFIX_BYTES: Final = 5


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallError(Exception):
    """The call can't go on; the client hears the status."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class MessageReader:
    """The messages of one stream, whose bytes come in pieces."""

    __slots__ = ("_max", "_need", "_pieces", "pending")

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._pieces: list[bytes] = []
        self._need = PREFIX_BYTES  # bytes until a message, or the prefix of one, is whole
        self.pending = 0  # bytes that wait for the rest of their message

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The messages that are whole by now. Raises CallError for one that is too large or compressed."""
        if self.pending + len(data) < self._need:
            self._pieces.append(data)
            self.pending += len(data)
            return ()
        if self.pending:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
        messages, at, size = [], 0, len(data)
        self._need = PREFIX_BYTES
        while size - at >= PREFIX_BYTES:
            end = at + PREFIX_BYTES + self._length(data, at)
            if end > size:
                self._need = end - at
                break
            messages.append(data[at + PREFIX_BYTES : end])
            at = end
        self.pending = size - at
        if self.pending:
            self._pieces.append(data[at:])
        return messages

    def _length(self, data: bytes, at: int) -> int:
        compressed, length = PREFIX(data, at)
        if compressed:
            raise CallError(Status.INTERNAL, "compressed message, though no encoding was agreed")
        if length > self._max:
            raise CallError(Status.RESOURCE_EXHAUSTED, "message too large")
        return int(length)


def refusal(request: Request) -> tuple[int, CallError | None] | None:
    """What a request that is no call we can serve is answered: an HTTP status, and where it is a call, its end."""
    kind = request.content_type
    if not kind.startswith(b"application/grpc") or kind[16:17] not in (b"", b"+", b";"):
        return 415, None
    if request.method != b"POST":
        return 405, None
    if request.encoding not in (b"", b"identity"):
        return 200, CallError(Status.UNIMPLEMENTED, "message encodings are not supported")
    return None


@cache
def trailers(status: Status, why: str = "") -> bytes:
    """The block that ends a call which was answered. `why` is one of our own texts: printable ASCII without `%`."""
    message = literal(b"grpc-message", why.encode()) if why else b""
    return literal(b"grpc-status", b"%d" % status) + message


@cache
def trailers_only(status: Status, why: str = "") -> bytes:
    """The block that is the whole answer to a call."""
    return GRPC_RESPONSE + trailers(status, why)
