"""What comes from the peer: bytes, cut anywhere, made into frames, and header blocks put together of their pieces."""

from collections.abc import Callable
from typing import Final

from multipick_epp.extproc.http2 import frames
from multipick_epp.extproc.http2.bounds import Bounds
from multipick_epp.extproc.http2.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    PREFACE,
    STREAM_MASK,
    Code,
    PeerError,
    expect,
    number_of,
    unpadded,
)

_HEADER: Final = frames.HEADER.unpack_from

Take = Callable[[int, int, int, bytes], None]
"""Who takes each frame: type, flags, stream, payload."""


class Input:
    """The receiving half of a connection, up to frames."""

    __slots__ = ("_rest", "_take", "_turn", "greeted", "more", "partial_since")

    def __init__(self, turn_frames: int, take: Take) -> None:
        """At most `turn_frames` are read in one go."""
        self.greeted = False  # the preface came
        self.more = False  # there are frames left to read
        self.partial_since: float | None = None  # a frame that is not whole yet
        self._turn = turn_frames
        self._take = take
        self._rest = b""  # what is no whole frame yet, or left

    def greet(self, data: bytes, now: float) -> bool:
        """The beginning came, or a part of it: whether the preface is whole. Raises PeerError."""
        data = self._rest + data
        if not data.startswith(PREFACE[: len(data)]):
            raise PeerError(Code.PROTOCOL_ERROR, "no preface")
        self.greeted = len(data) >= len(PREFACE)
        self._rest = data[len(PREFACE) :] if self.greeted else data
        if self.greeted:
            self.partial_since = None
        elif self.partial_since is None:
            self.partial_since = now
        return self.greeted

    def read(self, data: bytes, now: float) -> None:
        """Take the frames that are whole by now. With b"", those that were left. Raises PeerError, between frames."""
        since = None
        if self._rest:
            data, self._rest, self.more = self._rest + data, b"", False
            since, self.partial_since = self.partial_since, None
        at, size, take = 0, len(data), self._take
        for _ in range(self._turn):
            start = at + HEADER_BYTES
            if start > size:
                break
            high, low, kind, flags, number = _HEADER(data, at)
            if high or low > FRAME_BYTES:  # `high` counts what is 64 KB each
                raise PeerError(Code.FRAME_SIZE_ERROR, "frame too large")
            end = start + low
            if end > size:
                break
            take(kind, flags, number & STREAM_MASK, data[start:end])
            if end == size:
                return
            at = end
        else:
            self.more = True
        self._rest = data[at:]
        if self._rest and not self.more:
            self.partial_since = now if at or since is None else since


class HeaderBlock:
    """A HEADERS frame and the CONTINUATIONs behind it: between them no other frame may come."""

    __slots__ = ("_max_bytes", "_max_frames", "_pieces", "ended", "since", "stream")

    def __init__(self, bounds: Bounds) -> None:
        self.stream = 0  # whose block is in progress; 0: of none
        self.ended = False  # the stream ends with it
        self.since = 0.0
        self._pieces: list[bytes] = []
        self._max_bytes = 2 * bounds.header_list
        self._max_frames = bounds.header_frames

    def begin(self, flags: int, number: int, payload: bytes, now: float) -> bytes | None:
        """A HEADERS frame; the block, if that is all of it. Raises PeerError."""
        if not number & 1:
            raise PeerError(Code.PROTOCOL_ERROR, "no stream of a client")
        if flags & frames.PADDED:
            payload = unpadded(payload)
        if flags & frames.PRIORITISED:
            expect(len(payload) >= 5, "HEADERS too short", Code.FRAME_SIZE_ERROR)
            expect(number_of(payload[:4]) != number, "stream depends on itself")
            payload = payload[5:]
        self.ended = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            return payload
        self.stream, self.since, self._pieces = number, now, [payload]
        return None

    def go_on(self, flags: int, payload: bytes) -> bytes | None:
        """A CONTINUATION frame; the block, once it is whole. Raises PeerError."""
        expect(self.stream != 0, "CONTINUATION of nothing")
        self._pieces.append(payload)
        if len(self._pieces) > self._max_frames or sum(map(len, self._pieces)) > self._max_bytes:
            raise PeerError(Code.ENHANCE_YOUR_CALM, "header block too large")
        if not flags & frames.END_HEADERS:
            return None
        block, self.stream, self._pieces = b"".join(self._pieces), 0, []
        return block
