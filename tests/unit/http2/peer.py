"""A peer that says exactly the frames a test wants, a clock that stands still, and calls that remember."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import pack
from typing import NamedTuple

import hpack
from multipick_epp.extproc.http2.bounds import Bounds, Shared
from multipick_epp.extproc.http2.connection import Connection
from multipick_epp.extproc.http2.grpc import CallError, Status
from multipick_epp.extproc.http2.headers import Request
from multipick_epp.extproc.http2.stream import Call, Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 5, 6, 7, 8, 9, 11
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
CALL_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test/Echo"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8], "big")


def fields(block: bytes) -> dict[str, str]:
    """Of a block that we wrote."""
    return {str(name): str(value) for name, value in hpack.Decoder().decode(block)}


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + pack(">BBL", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    names = ("table", "push", "streams", "window", "frame", "headers")
    pairs = (pack(">HL", names.index(name) + 1, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def message(data: bytes) -> bytes:
    return b"\0" + pack(">L", len(data)) + data


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, payload)


def window(stream: int, credit: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, pack(">L", credit))


def rst(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, pack(">L", code))


def block(*extra: tuple[str, str], headers: list[tuple[str, str]] = CALL_HEADERS) -> bytes:
    """A header block that uses no table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    encoder.encode([])  # which says so
    return bytes(encoder.encode([*headers, *extra]))


def headers(stream: int, *extra: tuple[str, str], flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(*extra))


def frames(data: bytes) -> Iterator[Frame]:
    while data:
        length = int.from_bytes(data[:3], "big")
        yield Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length])
        data = data[9 + length :]


@dataclass
class Remembered(Call):
    """A call that does with each message what `react` says."""

    request: Request
    stream: Stream
    react: Callable[["Remembered", bytes], None]
    messages: list[bytes] = field(default_factory=list)
    half: bool = False
    over: int = 0

    def message(self, data: bytes) -> None:
        assert not self.over
        self.messages.append(data)
        self.react(self, data)

    def half_closed(self) -> None:
        assert not self.over
        assert not self.half
        self.half = True

    def closed(self) -> None:
        self.over += 1


def listen(call: Remembered, data: bytes) -> None:
    """Says nothing."""


def echo(call: Remembered, data: bytes) -> None:
    call.stream.send(data)


@dataclass
class Peer:
    """A client and the connection that it has, whose clock stands still."""

    bounds: Bounds = field(default_factory=Bounds)
    react: Callable[[Remembered, bytes], None] = listen
    now: float = 1000.0
    calls: list[Remembered] = field(default_factory=list)
    sheds: int = 0
    out: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shared = Shared(self.bounds, self.shed)
        self.connection = self.connect()

    def connect(self) -> Connection:
        return Connection(self.serve, self.bounds, self.shared, lambda: self.now, lambda: None)

    def serve(self, request: Request, stream: Stream) -> Call | CallError:
        if request.path != "/test/Echo":
            return CallError(Status.UNIMPLEMENTED, "unknown method")
        self.calls.append(Remembered(request, stream, self.react))
        return self.calls[-1]

    def shed(self) -> None:
        self.sheds += 1
        largest = self.connection.largest()
        assert largest is not None
        largest.reset(ENHANCE_YOUR_CALM)  # type: ignore[arg-type]

    def greet(self, **values: int) -> "Peer":
        """Preface and settings, and the answer to ours."""
        self.say(PREFACE + settings(**values))
        self.say(frame(SETTINGS, ACK))
        self.out.clear()
        return self

    def say(self, data: bytes) -> list[Frame]:
        """What is answered."""
        self.connection.receive(data)
        while self.connection.more:
            self.connection.receive(b"")
        return self.heard()

    def heard(self) -> list[Frame]:
        heard: list[Frame] = []
        while data := self.connection.take():
            heard += frames(data)
        self.out += heard
        return heard

    def tick(self, seconds: float) -> bool:
        self.now += seconds
        alive = self.connection.tick()
        self.heard()
        return alive

    @property
    def fault(self) -> int | None:
        """The code of the GOAWAY that ended the connection."""
        codes = [each.code for each in self.out if each.kind == GOAWAY]
        return codes[-1] if self.connection.closing and codes else None

    def named(self, kind: int, stream: int | None = None) -> list[Frame]:
        return [each for each in self.out if each.kind == kind and stream in (None, each.stream)]

    def body(self, stream: int) -> bytes:
        """All messages' bytes that came on a stream, with their prefixes."""
        return b"".join(each.payload for each in self.named(DATA, stream))

    def trailers(self, stream: int) -> dict[str, str]:
        last = self.named(HEADERS, stream)[-1]
        assert last.flags & END_STREAM
        return fields(last.payload)
