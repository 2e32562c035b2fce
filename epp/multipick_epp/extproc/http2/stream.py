"""One call: messages in, messages out, flow control and its own end in either direction.

The side of a call that faces us (`Call`) is pushed what arrives. The side that faces the peer is this class; it is the
`Transport` of an ext_proc conversation too. While the call asks for a pause, or its answers are not taken, messages
wait here and the peer gets no new credit: at most `stream_window` bytes more can come.
"""

import logging
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from multipick_epp.extproc.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADER,
    HEADERS,
    WINDOW_MAX,
    Code,
    StreamError,
    frame,
    rst_stream,
    window_update,
)
from multipick_epp.extproc.http2.grpc import (
    PREFIX,
    PREFIX_BYTES,
    CallError,
    MessageReader,
    Status,
    trailers,
    trailers_only,
)
from multipick_epp.extproc.http2.headers import GRPC_RESPONSE, Request, literal, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from multipick_epp.extproc.http2.streams import Streams


_NOT_GRPC = b"This port is for gRPC: ext_proc and health.\n"
_TEXT = literal(b"content-type", b"text/plain")

log = logging.getLogger(__name__)


class Ended(Enum):
    """How a stream came to its end: what may still come on it depends on that."""

    BOTH = auto()  # both sides ended it
    BY_PEER = auto()  # it reset the stream
    BY_US = auto()  # we did; what the peer sent before it knew is ignored


class Call(Protocol):
    """Our side of a call. No method raises or waits."""

    def message(self, data: bytes) -> None:
        """The peer said this."""

    def half_closed(self) -> None:
        """The peer says no more, but listens on."""

    def closed(self) -> None:
        """The call is over; comes exactly once, and nothing after it."""


class Stream:
    """The peer's side of a call."""

    __slots__ = (
        "_answered",
        "_at",
        "_clogged",
        "_content_left",
        "_ending",
        "_half_closed",
        "_held",
        "_output",
        "_over",
        "_paused",
        "_push",
        "_queue",
        "_queued",
        "_reader",
        "_refusal",
        "_remote_ended",
        "_streams",
        "_unreturned",
        "_waiting",
        "_window",
        "begun",
        "call",
        "credit",
        "id",
        "stalled_since",
    )

    def __init__(self, streams: "Streams", number: int, request: Request) -> None:
        self.id = number
        self.begun = False  # a message came
        self.call: Call | None = None  # None: refused, what comes is thrown away
        self.credit = 0  # bytes that we may send, beyond what the peer's settings give every stream
        self.stalled_since: float | None = None  # with something to send and no window, as the sweep saw it
        self._streams = streams
        self._output = streams.output
        self._reader = MessageReader(streams.bounds.message)
        self._window = streams.bounds.stream_window
        self._unreturned = 0  # bytes that were taken, and for which the peer has no new credit yet
        self._content_left = request.content_length
        self._waiting: deque[bytes] = deque()  # messages that the call doesn't want yet
        self._queue: deque[bytes] = deque()  # messages for the peer, with their prefix
        self._at = 0  # bytes of the first of them that were sent
        self._queued = 0  # bytes of all of them
        self._held = 0  # bytes that count as held by this stream
        self._push: Callable[[bytes], None] | None = None  # the call's `message`, while nothing stands in its way
        self._paused = False  # by the call
        self._clogged = False  # the peer doesn't take our answers
        self._answered = False  # the response's headers are sent
        self._refusal: int | None = None  # the HTTP status for what is no call
        self._remote_ended = False
        self._half_closed = False  # the call knows of that
        self._ending: bytes | None = None  # trailers that follow the queue; b"": an end without trailers
        self._over = False

    @property
    def held(self) -> int:
        """Bytes that wait here."""
        return self._held

    @property
    def answered(self) -> bool:
        """The peer got something for its request."""
        return self._answered

    # What our side does.

    def send(self, data: bytes) -> None:
        """Send one message behind those before it."""
        if self._over or self._ending is not None:
            return
        if not self._answered:
            self._answer(GRPC_RESPONSE)
        if not self._queue and self._output.message(self, data):
            return
        self._queue.append(len(data).to_bytes(PREFIX_BYTES, "big") + data)
        self._queued += len(data) + PREFIX_BYTES
        self._hold(len(data) + PREFIX_BYTES)
        self.flow()

    def end(self) -> None:
        """End the call with status OK behind all that was sent."""
        self._end(Status.OK, "")

    def fail(self, fault: CallError) -> None:
        """End the call with another status, behind all that was sent."""
        self._end(fault.status, fault.why)

    def refuse(self, code: int) -> None:
        """Answer a request that is no call with an HTTP status, once it is whole; what it brings is thrown away."""
        self._refusal = code

    def pause(self) -> None:
        """Push nothing more for now."""
        self._paused = True
        self._push = None

    def resume(self) -> None:
        """Go on after `pause`, later in this turn."""
        self._paused = False
        self._streams.may_go_on(self)

    # What the connection tells.

    def call_is(self, call: Call) -> None:
        """The request is answered by this."""
        self.call = call
        self._look()

    def data(self, payload: bytes, size: int, ended: bool) -> bool:
        """A DATA frame that was `size` bytes with its padding; whether a message, or the end, came of it.

        Raises StreamError, CallError.
        """
        if self._remote_ended:
            raise StreamError(Code.STREAM_CLOSED, "data behind the end")
        self._unreturned += size
        if self._unreturned > self._window:
            raise StreamError(Code.FLOW_CONTROL_ERROR, "more than the window")
        length = len(payload) - PREFIX_BYTES
        if self._push is not None and length >= 0 and PREFIX(payload) == (0, length):  # one message, as most often
            if not self.begun:
                self._begin()
            self._push(payload[PREFIX_BYTES:])
            came = True
        else:
            came = self._read(payload)
        if ended:
            self.ended()
            return True
        if self._unreturned >= self._window // 2 and not self._waiting:
            self._return_credit()
        return came

    def _read(self, payload: bytes) -> bool:
        """Push the messages that are whole by now, or let them wait; whether there are any."""
        if self._content_left is not None:
            self._content_left -= len(payload)
        reader = self._reader
        before = reader.pending
        messages = reader.feed(payload) if payload and self.call is not None else ()
        if reader.pending != before:
            self._hold(reader.pending - before)
            self._streams.partial += reader.pending - before
        if messages and not self.begun:
            self._begin()
        for message in messages:
            if self.call is None:  # it had enough
                break
            if self._paused or self._clogged or self._waiting:
                self._waiting.append(message)
                self._hold(len(message))
            else:
                self.call.message(message)
        self._look()
        return bool(messages)

    def _begin(self) -> None:
        self.begun = True
        self._streams.begun(self)

    def _look(self) -> None:
        """Whether the next message may be pushed as it comes."""
        odd = self._paused or self._clogged or self._waiting or self._reader.pending or self._content_left is not None
        if self.call is not None and not odd and self._streams.bounds.message >= FRAME_BYTES:
            self._push = self.call.message
        else:
            self._push = None

    def ended(self) -> None:
        """The peer says no more. Raises StreamError where it said less, or more, than it announced."""
        self._remote_ended = True
        if self._content_left:
            raise StreamError(Code.PROTOCOL_ERROR, "content-length is not true")
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self.call is None:
            return
        elif self._reader.pending:
            self.fail(CallError(Status.INTERNAL, "half a message"))
        else:
            self.go_on()

    def go_on(self) -> None:
        """Push what waited, and the end behind it, as far as the call wants it."""
        while self.call is not None and not (self._paused or self._clogged):
            if self._waiting:
                message = self._waiting.popleft()
                self._hold(-len(message))
                self.call.message(message)
            elif self._remote_ended and not self._half_closed:
                self._half_closed = True
                self.call.half_closed()
            else:
                self._return_credit()
                return

    def more_credit(self, credit: int) -> None:
        """The peer takes more of this stream. Raises StreamError."""
        self.credit += credit
        if self.credit + self._output.peer_window > WINDOW_MAX:
            raise StreamError(Code.FLOW_CONTROL_ERROR, "window above the maximum")
        self.flow()

    def reset(self, code: Code) -> None:
        """End the stream at once, and tell the peer."""
        self._output.write(rst_stream(self.id, code))
        self._close(Ended.BY_US)

    def lost(self) -> None:
        """The peer has reset the stream, or is gone."""
        self._close(Ended.BY_PEER)

    # The queue towards the peer.

    def flow(self) -> None:
        """Send what is queued, as far as the windows go, and the end behind it."""
        output = self._output
        queued = bool(self._queue)
        while self._queue:
            message = self._queue[0]
            size = output.part(self, min(len(message) - self._at, FRAME_BYTES))
            if not size:
                output.block(self)
                self._clog()
                return
            piece = message[self._at : self._at + size] if size < len(message) else message
            output.write(HEADER.pack(0, size, DATA, 0, self.id) + piece)
            self.stalled_since = None
            self._at += size
            self._queued -= size
            self._hold(-size)
            if self._at == len(message):
                self._queue.popleft()
                self._at = 0
        if queued:
            output.unblock(self)
        if self._ending is not None:
            kind, flags = (HEADERS, END_HEADERS | END_STREAM) if self._ending else (DATA, END_STREAM)
            output.write(frame(kind, flags, self.id, self._ending))
            if not self._remote_ended:  # the peer need say no more
                output.write(rst_stream(self.id, Code.NO_ERROR))
            self._close(Ended.BOTH if self._remote_ended else Ended.BY_US)
        elif self._clogged:
            self._clog()

    def _clog(self) -> None:
        # Half of the bound, so that the two states don't alternate with each message.
        clogged = self._queued > self._streams.bounds.outbox / (2 if self._clogged else 1)
        if self._clogged and not clogged:
            self._streams.may_go_on(self)
        self._clogged = clogged
        if clogged:
            self._push = None

    def _answer(self, block: bytes) -> None:
        self._answered = True
        self._output.write(frame(HEADERS, END_HEADERS, self.id, block))

    def _refuse(self, code: int) -> None:
        self._answer(status(code) + _TEXT)
        self._queue.append(_NOT_GRPC)
        self._queued += len(_NOT_GRPC)
        self._hold(len(_NOT_GRPC))
        self._ending = b""
        self.flow()

    def _end(self, code: Status, why: str) -> None:
        if self._over or self._ending is not None:
            return
        if self._answered:
            self._ending = trailers(code, why)
        else:
            self._answered = True
            self._ending = trailers_only(code, why)
        if self._waiting:
            self._hold(-sum(map(len, self._waiting)))
            self._waiting.clear()
        call, self.call, self._push = self.call, None, None
        self.flow()
        _closed(call)

    def _return_credit(self) -> None:
        if self._remote_ended or self._unreturned < self._window // 2:
            return
        wanted = self.call is not None or self._refusal is not None
        if wanted and not (self._paused or self._clogged):
            self._output.write(window_update(self.id, self._unreturned))
            self._unreturned = 0

    def _hold(self, count: int) -> None:
        self._held += count
        self._streams.hold(count)

    def _close(self, how: Ended) -> None:
        if self._over:
            return
        self._over = True
        self._streams.partial -= self._reader.pending
        self._waiting.clear()
        self._queue.clear()
        if self._held:
            self._hold(-self._held)
        self._streams.gone(self, how)
        call, self.call, self._push = self.call, None, None
        _closed(call)


def _closed(call: Call | None) -> None:
    if call is None:
        return
    try:
        call.closed()
    except Exception:  # it must not keep the others from hearing the same
        log.exception("a call failed as it ended")
