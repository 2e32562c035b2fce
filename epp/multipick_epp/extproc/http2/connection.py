"""One peer's connection, without I/O: bytes in; bytes out, and calls.

Rules
  1. `receive` takes what came, cut anywhere, and never raises. What is to be written is gathered and fetched by `take`.
     `wake` is called when there is something to fetch that no `receive` is about to return from.
  2. Whatever a peer can make us keep or do has a bound in `Bounds`; what needs a clock is looked at by `tick`.
  3. A broken rule costs the stream where the protocol allows it, else the connection, and never more.

Flow control. Credit for a stream is returned as its call takes the messages, credit for the connection as bytes come
in: a call that pauses must not hold up the others. Only where all of them hold more than `connection_window` does the
connection's credit wait too.
"""

import logging
from collections.abc import Callable

from multipick_epp.extproc.http2 import frames
from multipick_epp.extproc.http2.bounds import Allowance, Bounds, Shared
from multipick_epp.extproc.http2.frames import (
    DATA,
    END_STREAM,
    PADDED,
    WINDOW_MAX,
    Code,
    PeerError,
    Setting,
    StreamError,
    expect,
    number_of,
    unpadded,
)
from multipick_epp.extproc.http2.grpc import CallError, Status
from multipick_epp.extproc.http2.input import HeaderBlock, Input
from multipick_epp.extproc.http2.output import Output
from multipick_epp.extproc.http2.stream import Stream
from multipick_epp.extproc.http2.streams import Serve, Streams

log = logging.getLogger(__name__)

_TINY = 64  # bytes of a DATA frame that should have been part of a larger one
_DRAIN = b"drained?"
_DRAIN_S = 1.0  # for the answer to it
_KEEPALIVE = b"alive?  "


class Connection:
    """One connection in progress."""

    def __init__(
        self, serve: Serve, bounds: Bounds, shared: Shared, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.closing = False  # what is left to write is the last
        self.fault: PeerError | None = None  # why, where the peer is to blame
        self.settled = False  # preface and settings are there
        self._bounds = bounds
        self._clock = clock
        self._allowance = Allowance(bounds.idle_work, bounds.idle_work_per_s, clock)
        self.input = Input(bounds.turn_frames, self._frame)
        self._block = HeaderBlock(bounds)
        self.output = Output(self._allowance, wake)
        self.streams = Streams(serve, bounds, shared, self.output, self._allowance)
        self._acknowledged = False  # our settings
        self._window = bounds.connection_window
        self._credit = bounds.connection_window // 4  # is returned at once: so much, at least
        self._unreturned = 0  # bytes that came, and for which the peer has no new credit yet
        self._opened = self._heard = self._used = clock()
        self._asked: float | None = None  # for a sign of life
        self._draining: float | None = None  # since when
        self._warned = False  # of that, by a GOAWAY that takes nothing from the peer yet

    # In and out.

    def receive(self, data: bytes) -> None:
        """Bytes came; or b"": go on with what was left."""
        if self.closing:
            return
        if data:
            self._heard, self._asked = self._clock(), None
        try:
            if self.input.greeted:
                self.input.read(data, self._heard)
            elif self.input.greet(data, self._heard):
                self._greet()
                self.input.read(b"", self._heard)
        except PeerError as fault:
            self.fault = fault
            self._die(fault.code, fault.why)
        except Exception:
            log.exception("a connection failed and is closed")
            self._die(Code.INTERNAL_ERROR, "")

    @property
    def more(self) -> bool:
        """Input is left that `receive(b"")` goes on with."""
        return self.input.more and not self.closing

    def take(self) -> bytes:
        """What is to be written now; to be asked again until there is nothing. Nothing while the peer doesn't read."""
        streams, output = self.streams, self.output
        if streams.ready:
            self._go_on()
        if output.waiting:
            output.flow()
        if self._unreturned >= self._credit:
            self._return_credit()
        if not streams.open and streams.refuse_above != WINDOW_MAX:
            self.closing = True
        return output.take() if output.writable or self.closing else b""

    def writable(self, writable: bool) -> None:
        """The peer reads what we write, or doesn't."""
        self.output.writable = writable
        if writable:
            self._heard, self._asked = self._clock(), None

    def lost(self) -> None:
        """There is no connection any more."""
        self.closing = True
        for stream in tuple(self.streams.open.values()):
            stream.lost()

    def drain(self) -> None:
        """Take no new streams once the peer knows; close when the last one ends."""
        if self._draining is None and not self.closing:
            self._draining = self._clock()
            if self.input.greeted:
                self._warn()

    @property
    def expects_more(self) -> bool:
        """New streams are served."""
        return not self.closing and self.streams.refuse_above == WINDOW_MAX

    def shut(self) -> None:
        """Take no new streams; close when the last one ends."""
        if self.expects_more:
            self.streams.refuse_above = self.streams.last
            if self.input.greeted:
                self.output.write(frames.goaway(self.streams.last, Code.NO_ERROR))
            self.output.wake()

    def finish(self) -> None:
        """End the calls that are left, and take no more."""
        for stream in tuple(self.streams.open.values()):
            stream.fail(CallError(Status.UNAVAILABLE, "going away"))
        self.shut()

    def tick(self) -> bool:
        """Look at the clock; false where the connection has to be cut at once. To be called every second or so."""
        now, peers = self._clock(), self._bounds.connections
        partial = self.input.partial_since
        if (
            (not self._acknowledged and now - self._opened >= peers.handshake_s)
            or (partial is not None and now - partial > self._bounds.frame_s)
            or (self._block.stream and now - self._block.since > self._bounds.frame_s)
            or (self._asked is not None and now - self._asked > peers.pong_s)
        ):
            return False
        if self._asked is None and now - self._heard > peers.ping_s:
            self._asked = now
            self.output.write(frames.ping(_KEEPALIVE))
        self.streams.overdue(now)
        if self.streams.open:
            self._used = now
        elif now - self._used > peers.idle_s:
            self.drain()
        if self._draining is not None and now - self._draining > _DRAIN_S:
            if self.input.greeted and not self._warned:  # it came while we drained: not at once, or it came in a loop
                self._draining = now
                self._warn()
            else:
                self.shut()
        return True

    @property
    def idle_since(self) -> float | None:
        """When it had a stream last, within a second, or it came; None while there are streams."""
        return None if self.streams.open else self._used

    def largest(self) -> Stream | None:
        """The stream that holds most."""
        return max(self.streams.open.values(), key=lambda stream: stream.held, default=None)

    # Frames.

    def _greet(self) -> None:
        bounds = self._bounds
        settings = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.MAX_CONCURRENT_STREAMS: bounds.streams,
            Setting.INITIAL_WINDOW_SIZE: bounds.stream_window,
            Setting.MAX_HEADER_LIST_SIZE: bounds.header_list,
        }
        self.output.write(frames.settings(settings))
        self.output.write(frames.window_update(0, bounds.connection_window - frames.WINDOW_DEFAULT))

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        try:
            if kind != DATA or self._block.stream or not self.settled:
                self._other(kind, flags, number, payload)
                return
            size = len(payload)
            self._unreturned += size
            if self._unreturned > self._window:
                raise PeerError(Code.FLOW_CONTROL_ERROR, "more than the window")
            if flags & PADDED:
                payload = unpadded(payload)
            stream = self.streams.open.get(number)
            if stream is None:
                self.streams.late_data(number)
            elif not stream.data(payload, size, flags & END_STREAM != 0) and size < _TINY:
                self._allowance.take(1)
        except StreamError as fault:
            self._allowance.take(Allowance.RESET)
            self.streams.reset(number, fault.code)
        except CallError as fault:
            if stream := self.streams.open.get(number):
                stream.fail(fault)
        except PeerError:
            raise
        except Exception:
            self._failed(number)

    def _other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block.stream:
            expect(kind == frames.CONTINUATION and number == block.stream, "header block interrupted")
        if not self.settled:
            expect(kind == frames.SETTINGS and not flags & frames.ACK, "no settings")
        match kind:
            case frames.HEADERS:
                self._headers(number, block.begin(flags, number, payload, self._heard))
            case frames.CONTINUATION:
                self._headers(number, block.go_on(flags, payload))
            case frames.RST_STREAM:
                self._rst_stream(number, payload)
            case frames.WINDOW_UPDATE:
                self._window_update(number, payload)
            case frames.SETTINGS:
                self._settings(flags, number, payload)
            case frames.PING:
                self._ping(flags, number, payload)
            case frames.PRIORITY:
                self._priority(number, payload)
            case frames.GOAWAY:
                expect(number == 0, "GOAWAY on a stream")
                expect(len(payload) >= 8, "GOAWAY too short", Code.FRAME_SIZE_ERROR)
                self._allowance.take(1)
            case frames.PUSH_PROMISE:
                raise PeerError(Code.PROTOCOL_ERROR, "a client can't push")
            case _:  # unknown kinds are ignored
                self._allowance.take(1)

    def _headers(self, number: int, block: bytes | None) -> None:
        if block is not None:
            self.streams.begin(number, block, self._block.ended, self._heard)

    def _rst_stream(self, number: int, payload: bytes) -> None:
        expect(len(payload) == 4, "RST_STREAM of wrong size", Code.FRAME_SIZE_ERROR)
        stream = self.streams.find(number)
        if stream is None:
            self._allowance.take(1)
            return
        if not stream.answered:
            self._allowance.take(Allowance.TAKEN_BACK if stream.begun else Allowance.RESET)
        stream.lost()

    def _window_update(self, number: int, payload: bytes) -> None:
        expect(len(payload) == 4, "WINDOW_UPDATE of wrong size", Code.FRAME_SIZE_ERROR)
        self._allowance.take(1)
        credit = number_of(payload)
        if number == 0:
            expect(credit > 0, "no credit")
            self.output.credit(credit)
        elif stream := self.streams.find(number):
            if not credit:
                raise StreamError(Code.PROTOCOL_ERROR, "no credit")
            stream.more_credit(credit)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        expect(number == 0, "SETTINGS on a stream")
        if flags & frames.ACK:
            expect(not payload, "SETTINGS of wrong size", Code.FRAME_SIZE_ERROR)
            self._allowance.take(1)
            self._acknowledged = True
            self.streams.headers.table_off()
            return
        expect(len(payload) % 6 == 0, "SETTINGS of wrong size", Code.FRAME_SIZE_ERROR)
        self._allowance.take(1 + len(payload) // 60)
        for at in range(0, len(payload), 6):
            self._setting(int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        self.settled = True
        self.output.write(frames.SETTINGS_ACK)

    def _setting(self, name: int, value: int) -> None:
        # The other settings bind what we don't do: large frames, tables, streams of our own.
        if name == Setting.INITIAL_WINDOW_SIZE:
            expect(value <= WINDOW_MAX, "window above the maximum", Code.FLOW_CONTROL_ERROR)
            self._allowance.take(self.output.widen(value) / 10)
        elif name == Setting.MAX_FRAME_SIZE:
            expect(frames.FRAME_BYTES <= value < 1 << 24, "frame size out of range")
        elif name == Setting.ENABLE_PUSH:
            expect(value <= 1, "push is off or on")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        expect(number == 0, "PING on a stream")
        expect(len(payload) == 8, "PING of wrong size", Code.FRAME_SIZE_ERROR)
        self._allowance.take(1)
        if not flags & frames.ACK:
            self.output.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN and self._draining is not None:
            self.shut()

    def _priority(self, number: int, payload: bytes) -> None:
        expect(number != 0, "PRIORITY on no stream")
        self._allowance.take(1)
        if len(payload) != 5:
            raise StreamError(Code.FRAME_SIZE_ERROR, "PRIORITY of wrong size")
        if number_of(payload[:4]) == number:
            raise StreamError(Code.PROTOCOL_ERROR, "stream depends on itself")

    # The rest.

    def _warn(self) -> None:
        self._warned = True
        self.output.write(frames.goaway(WINDOW_MAX, Code.NO_ERROR) + frames.ping(_DRAIN))

    def _go_on(self) -> None:
        """Push the messages that waited, where they may come now."""
        while stream := self.streams.next_ready():
            try:
                stream.go_on()
            except Exception:
                self._failed(stream.id)

    def _return_credit(self) -> None:
        # Messages larger than the window, or several at once, would wait for ever for what we don't let in.
        if self.streams.held - self.streams.partial <= self._window:
            self.output.write(frames.window_update(0, self._unreturned))
            self._unreturned = 0

    def _failed(self, number: int) -> None:
        log.exception("a stream failed and is reset")
        self.streams.reset(number, Code.INTERNAL_ERROR)

    def _die(self, code: Code, why: str) -> None:
        if self.input.greeted:
            self.output.write(frames.goaway(self.streams.last, code, why))
        self.lost()
