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
from multipick_epp.extproc.http2.frames import Code, PeerError, Setting, StreamError
from multipick_epp.extproc.http2.grpc import CallError, Status, refusal
from multipick_epp.extproc.http2.headers import HeaderReader, Request, TooLargeError, check_trailers, status
from multipick_epp.extproc.http2.output import Output
from multipick_epp.extproc.http2.stream import Call, Ended, Stream

log = logging.getLogger(__name__)

_CLOSED = 1_000  # streams whose end is remembered
_TINY = 64  # bytes of a DATA frame that should have been part of a larger one
_DRAIN = b"drained?"
_KEEPALIVE = b"alive?  "

Serve = Callable[[Request, Stream], Call | CallError]
"""Who answers a request: a call, or why there is none."""


class Connection:
    """One connection in progress."""

    def __init__(
        self, serve: Serve, bounds: Bounds, shared: Shared, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.bounds = bounds
        self.streams: dict[int, Stream] = {}
        self.closing = False  # what is left to write is the last
        self.fault: PeerError | None = None  # why, where the peer is to blame
        self.settled = False  # preface and settings are there
        self.more = False  # input is left that `receive(b"")` goes on with
        self.held = 0  # bytes queued in its streams
        self.wake = wake
        self._serve = serve
        self._shared = shared
        self._clock = clock
        self._allowance = Allowance(bounds.idle_work, bounds.idle_work_per_s, clock)
        self._headers = HeaderReader(bounds.header_list, self._allowance)
        self.output = Output(self._allowance, wake)
        self._rest = b""  # input that is no whole frame yet
        self._greeted = False
        self._acknowledged = False  # our settings
        self._ready: dict[Stream, None] = {}  # may push on what waits
        self._receive_window = frames.WINDOW_DEFAULT
        self._unreturned = 0
        self._last = 0  # the newest stream
        self._refuse_above = frames.WINDOW_MAX  # as our GOAWAY says
        self._draining = False
        self._closed: dict[int, Ended] = {}
        self._block: tuple[int, int, list[bytes]] | None = None  # stream, flags, pieces: header block in progress
        self._young: dict[Stream, float] = {}  # without a message so far, and since when
        self._deadlines: dict[Stream, float] = {}
        self._opened = self._heard = self._idle_since = clock()
        self._asked: float | None = None  # for a sign of life
        self._partial_since: float | None = None  # a frame in progress
        self._block_since = 0.0

    # In and out.

    def receive(self, data: bytes) -> None:
        """Bytes came; or b"": go on with what was left."""
        if self.closing:
            return
        self.more = False
        if data:
            self._heard = self._clock()
            self._asked = None
        data = self._rest + data if self._rest else data
        self._rest = b""
        try:
            at = self._frames(data, 0 if self._greeted else self._greet(data))
        except PeerError as fault:
            self.fault = fault
            self._die(fault.code, fault.why)
        except Exception:
            log.exception("a connection failed and is closed")
            self._die(Code.INTERNAL_ERROR, "")
        else:
            self._rest = data[at:]
            if not self._rest or self.more:
                self._partial_since = None
            elif at or self._partial_since is None:
                self._partial_since = self._heard

    def take(self) -> bytes:
        """What is to be written now; to be asked again until there is nothing. Nothing while the peer doesn't read."""
        self._settle()
        return self.output.take() if self.output.writable or self.closing else b""

    def writable(self, writable: bool) -> None:
        """The peer reads what we write, or doesn't."""
        self.output.writable = writable
        if writable:
            self._heard = self._clock()
            self._asked = None

    def lost(self) -> None:
        """There is no connection any more."""
        self.closing = True
        for stream in tuple(self.streams.values()):
            stream.lost()

    def drain(self) -> None:
        """Take no new streams once the peer knows; close when the last one ends."""
        if self._draining or self.closing:
            return
        self._draining = True
        self._idle_since = self._clock()
        if self._greeted:
            self.output.write(frames.goaway(frames.WINDOW_MAX, Code.NO_ERROR) + frames.ping(_DRAIN))

    def finish(self) -> None:
        """End the calls that are left, and take no more."""
        self._draining = True
        for stream in tuple(self.streams.values()):
            stream.fail(CallError(Status.UNAVAILABLE, "going away"))
        self._last_goaway()

    def tick(self) -> bool:
        """Look at the clock; false where the connection has to be cut at once. To be called every second or so."""
        now, bounds, peers = self._clock(), self.bounds, self.bounds.connections
        if not self._acknowledged and now - self._opened >= peers.handshake_s:
            return False
        if self._partial_since is not None and now - self._partial_since > bounds.frame_s:
            return False
        if self._block is not None and now - self._block_since > bounds.frame_s:
            return False
        if self._asked is not None and now - self._asked > peers.pong_s:
            return False
        if self._asked is None and now - self._heard > peers.ping_s:
            self._asked = now
            self.output.write(frames.ping(_KEEPALIVE))
        self._end_overdue(now)
        if self._draining and now - self._idle_since > 1.0:
            self._last_goaway()
        if not self.streams and now - self._idle_since > peers.idle_s:
            self.drain()
        return True

    @property
    def idle_since(self) -> float | None:
        """When its last stream ended, or it came; None while there are streams."""
        return None if self.streams else self._idle_since

    def largest(self) -> Stream | None:
        """The stream that holds most."""
        return max(self.streams.values(), key=lambda stream: stream.held, default=None)

    # For streams.

    def ready(self, stream: Stream) -> None:
        """It may push on what waits, once this turn is over."""
        self._ready[stream] = None
        self.wake()

    def hold(self, count: int) -> None:
        """So many bytes more are queued in a stream, or less."""
        self.held += count
        self._shared.hold(count)

    def begun(self, stream: Stream) -> None:
        """Its first message came."""
        self._young.pop(stream, None)

    def gone(self, stream: Stream, how: Ended) -> None:
        """It ended."""
        del self.streams[stream.id]
        self._shared.streams -= 1
        self._young.pop(stream, None)
        self.output.unblock(stream)
        if self._ready:
            self._ready.pop(stream, None)
        if self._deadlines:
            self._deadlines.pop(stream, None)
        self._remember(stream.id, how)
        if not self.streams:
            self._idle_since = self._clock()

    # Frames.

    def _greet(self, data: bytes) -> int:
        """Where the frames begin."""
        if not data.startswith(frames.PREFACE[: len(data)]):
            raise PeerError(Code.PROTOCOL_ERROR, "no preface")
        if len(data) < len(frames.PREFACE):
            return 0
        self._greeted = True
        bounds = self.bounds
        settings = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.MAX_CONCURRENT_STREAMS: bounds.streams,
            Setting.INITIAL_WINDOW_SIZE: bounds.stream_window,
            Setting.MAX_HEADER_LIST_SIZE: bounds.header_list,
        }
        self.output.write(frames.settings(settings))
        self._receive_window = bounds.connection_window
        self.output.write(frames.window_update(0, bounds.connection_window - frames.WINDOW_DEFAULT))
        return len(frames.PREFACE)

    def _frames(self, data: bytes, at: int) -> int:
        """Handle the whole frames from `at` on; where the next one begins."""
        if not self._greeted:
            return 0
        size, turn, unpack = len(data), self.bounds.turn_frames, frames.HEADER.unpack_from
        while size - at >= frames.HEADER_BYTES:
            high, low, kind, flags, number = unpack(data, at)
            length = high << 16 | low
            if length > frames.FRAME_BYTES:
                raise PeerError(Code.FRAME_SIZE_ERROR, "frame too large")
            start = at + frames.HEADER_BYTES
            end = start + length
            if end > size:
                break
            if not turn:
                self.more = True
                break
            turn -= 1
            at = end
            number &= frames.STREAM_MASK
            try:
                self._frame(kind, flags, number, data[start:end])
            except StreamError as fault:
                self._allowance.take(Allowance.RESET)
                self._reset(number, fault.code)
            except CallError as fault:
                if stream := self.streams.get(number):
                    stream.fail(fault)
            except PeerError:
                raise
            except Exception:
                self._failed(number)
        return at

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == frames.DATA and self._block is None and self.settled:
            self._data(flags, number, payload)
            return
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise PeerError(Code.PROTOCOL_ERROR, "header block interrupted")
        if not self.settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise PeerError(Code.PROTOCOL_ERROR, "no settings")
        match kind:
            case frames.HEADERS:
                self._begin_block(flags, number, payload)
            case frames.CONTINUATION:
                self._continue_block(flags, payload)
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
                _expect(number == 0, "GOAWAY on a stream")
                _expect(len(payload) >= 8, "GOAWAY too short", Code.FRAME_SIZE_ERROR)
                self._allowance.take(1)
            case frames.PUSH_PROMISE:
                raise PeerError(Code.PROTOCOL_ERROR, "a client can't push")
            case _:  # unknown kinds are ignored
                self._allowance.take(1)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise PeerError(Code.FLOW_CONTROL_ERROR, "more than the window")
        self._unreturned += size
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        stream = self.streams.get(number)
        if stream is None:
            self._late_data(number)
            return
        ended = bool(flags & frames.END_STREAM)
        message = stream.data(payload, size, ended)
        if size < _TINY and not (message or ended):
            self._allowance.take(1)

    def _late_data(self, number: int) -> None:
        if number == 0 or not number & 1 or number > self._last:
            raise PeerError(Code.PROTOCOL_ERROR, "data on no stream")
        self._allowance.take(1)
        if self._closed.get(number) is not Ended.BY_US:
            raise StreamError(Code.STREAM_CLOSED, "data behind the end")

    def _begin_block(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise PeerError(Code.PROTOCOL_ERROR, "no stream of a client")
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.PRIORITISED:
            _expect(len(payload) >= 5, "HEADERS too short", Code.FRAME_SIZE_ERROR)
            dependency, payload = payload[:4], payload[5:]
            if _number(dependency) == number:
                raise PeerError(Code.PROTOCOL_ERROR, "stream depends on itself")
        if flags & frames.END_HEADERS:
            self._headers_of(number, flags, payload)
        else:
            self._block = (number, flags, [payload])
            self._block_since = self._clock()

    def _continue_block(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise PeerError(Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
        number, first_flags, pieces = self._block
        pieces.append(payload)
        if len(pieces) > self.bounds.header_frames or sum(map(len, pieces)) > 2 * self.bounds.header_list:
            raise PeerError(Code.ENHANCE_YOUR_CALM, "header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers_of(number, first_flags, b"".join(pieces))

    def _headers_of(self, number: int, flags: int, block: bytes) -> None:
        ended = bool(flags & frames.END_STREAM)
        if number > self._last:
            self._last = number
            self._open(number, ended, block)
            return
        fields = self._fields(block)
        stream = self.streams.get(number)
        if stream is not None:
            if fields is None or not ended:
                raise StreamError(Code.PROTOCOL_ERROR, "trailers that end nothing, or too large")
            check_trailers(fields)
            stream.data(b"", 0, True)
            return
        how = self._closed.get(number)
        if how is Ended.BOTH:
            raise PeerError(Code.STREAM_CLOSED, "headers behind the end")
        if how is None:
            raise PeerError(Code.PROTOCOL_ERROR, "stream below the newest")
        self._allowance.take(1)
        if how is Ended.BY_PEER:
            raise StreamError(Code.STREAM_CLOSED, "headers behind the end")

    def _fields(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        try:
            return list(self._headers.fields(block))
        except TooLargeError:
            return None

    def _open(self, number: int, ended: bool, block: bytes) -> None:
        try:
            request = self._headers.request(block)
        except TooLargeError:
            self._answer_plainly(number, 431, ended)
            return
        if number > self._refuse_above:
            self._allowance.take(1)
            return
        if len(self.streams) >= self.bounds.streams or self._shared.streams >= self.bounds.all_streams:
            raise StreamError(Code.REFUSED_STREAM, "too many streams")
        stream = Stream(self, number, request)
        self.streams[number] = stream
        self._shared.streams += 1
        self._young[stream] = self._heard
        refused = refusal(request)
        if refused is None:
            answer = self._serve(request, stream)
            if isinstance(answer, CallError):
                stream.fail(answer)
            else:
                stream.call = answer
                if request.timeout_s is not None:
                    self._deadlines[stream] = self._heard + request.timeout_s
        elif refused[1] is not None:
            stream.fail(refused[1])
        else:
            stream.refuse(refused[0])
        if ended and number in self.streams:
            stream.ended()

    def _answer_plainly(self, number: int, code: int, ended: bool) -> None:
        self._allowance.take(Allowance.RESET)
        flags = frames.END_HEADERS | frames.END_STREAM
        self.output.write(frames.frame(frames.HEADERS, flags, number, status(code)))
        if not ended:
            self.output.write(frames.rst_stream(number, Code.NO_ERROR))
        self._remember(number, Ended.BOTH if ended else Ended.BY_US)

    def _rst_stream(self, number: int, payload: bytes) -> None:
        _expect(len(payload) == 4, "RST_STREAM of wrong size", Code.FRAME_SIZE_ERROR)
        self._expect_seen(number)
        stream = self.streams.get(number)
        if stream is None:
            self._allowance.take(1)
            return
        if not stream.answered:
            self._allowance.take(Allowance.RESET)
        stream.lost()

    def _window_update(self, number: int, payload: bytes) -> None:
        _expect(len(payload) == 4, "WINDOW_UPDATE of wrong size", Code.FRAME_SIZE_ERROR)
        self._allowance.take(1)
        credit = _number(payload)
        if number == 0:
            _expect(credit > 0, "no credit")
            self.output.credit(credit)
            return
        self._expect_seen(number)
        stream = self.streams.get(number)
        if stream is not None:
            if not credit:
                raise StreamError(Code.PROTOCOL_ERROR, "no credit")
            stream.more_credit(credit)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        _expect(number == 0, "SETTINGS on a stream")
        if flags & frames.ACK:
            _expect(not payload, "SETTINGS of wrong size", Code.FRAME_SIZE_ERROR)
            self._acknowledged = True
            self._headers.table_off()
            self._allowance.take(1)
            return
        _expect(len(payload) % 6 == 0, "SETTINGS of wrong size", Code.FRAME_SIZE_ERROR)
        self._allowance.take(1 + len(payload) // 60)
        for at in range(0, len(payload), 6):
            self._setting(int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        self.settled = True
        self.output.write(frames.SETTINGS_ACK)

    def _setting(self, name: int, value: int) -> None:
        # The other settings bind what we don't do: push, large frames, tables, streams of our own.
        if name == Setting.INITIAL_WINDOW_SIZE:
            _expect(value <= frames.WINDOW_MAX, "window above the maximum", Code.FLOW_CONTROL_ERROR)
            self._allowance.take(self.output.widen(value) / 10)
        elif name == Setting.MAX_FRAME_SIZE:
            _expect(frames.FRAME_BYTES <= value < 1 << 24, "frame size out of range")
        elif name == Setting.ENABLE_PUSH:
            _expect(value <= 1, "push is off or on")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        _expect(number == 0, "PING on a stream")
        _expect(len(payload) == 8, "PING of wrong size", Code.FRAME_SIZE_ERROR)
        self._allowance.take(1)
        if not flags & frames.ACK:
            self.output.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN and self._draining:
            self._last_goaway()

    def _priority(self, number: int, payload: bytes) -> None:
        _expect(number != 0, "PRIORITY on no stream")
        self._allowance.take(1)
        if len(payload) != 5:
            raise StreamError(Code.FRAME_SIZE_ERROR, "PRIORITY of wrong size")
        if _number(payload[:4]) == number:
            raise StreamError(Code.PROTOCOL_ERROR, "stream depends on itself")

    # The rest.

    def _settle(self) -> None:
        """What the turn that ends made possible: waiting messages, queued answers, credit, the end."""
        while self._ready:
            stream = next(iter(self._ready))
            del self._ready[stream]
            try:
                stream.go_on()
            except Exception:
                self._failed(stream.id)
        self.output.flow()
        if self._unreturned >= self.bounds.connection_window // 4 and self.held <= self.bounds.connection_window:
            self.output.write(frames.window_update(0, self._unreturned))
            self._receive_window += self._unreturned
            self._unreturned = 0
        if not self.streams and self._refuse_above != frames.WINDOW_MAX:
            self.closing = True

    def _expect_seen(self, number: int) -> None:
        _expect(number != 0 and number <= self._last and number & 1 == 1, "frame on a stream that isn't there")

    def _reset(self, number: int, code: Code) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            stream.reset(code)
        else:
            self.output.write(frames.rst_stream(number, code))
            if number not in self._closed:
                self._remember(number, Ended.BY_US)

    def _failed(self, number: int) -> None:
        log.exception("a stream failed and is reset")
        self._reset(number, Code.INTERNAL_ERROR)

    def _remember(self, number: int, how: Ended) -> None:
        self._closed[number] = how
        if len(self._closed) > _CLOSED:
            del self._closed[next(iter(self._closed))]

    def _end_overdue(self, now: float) -> None:
        for stream, since in tuple(self._young.items()):
            if now - since <= self.bounds.first_message_s:
                break  # the others are younger
            stream.reset(Code.CANCEL)
        for stream in [stream for stream, deadline in self._deadlines.items() if deadline < now]:
            self._deadlines.pop(stream, None)
            stream.fail(CallError(Status.DEADLINE_EXCEEDED, "the call's own deadline"))
        for stream in self.output.blocked:
            if stream.stalled_since is None:
                stream.stalled_since = now
            elif now - stream.stalled_since > self.bounds.stalled_s:
                stream.reset(Code.CANCEL)

    def _last_goaway(self) -> None:
        if self._refuse_above == frames.WINDOW_MAX and not self.closing:
            self._refuse_above = self._last
            if self._greeted:
                self.output.write(frames.goaway(self._last, Code.NO_ERROR))
            else:
                self.closing = True
            self.wake()

    def _die(self, code: Code, why: str) -> None:
        if self._greeted:
            self.output.write(frames.goaway(self._last, code, why))
        self.lost()


def _expect(true: bool, why: str, code: Code = Code.PROTOCOL_ERROR) -> None:
    if not true:
        raise PeerError(code, why)


def _number(payload: bytes) -> int:
    return int.from_bytes(payload, "big") & frames.STREAM_MASK


def _unpadded(payload: bytes) -> bytes:
    _expect(len(payload) > 0, "no padding length", Code.FRAME_SIZE_ERROR)
    end = len(payload) - payload[0]
    _expect(end >= 1, "more padding than frame")
    return payload[1:end]
