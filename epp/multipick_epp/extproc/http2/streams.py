"""The streams of one connection: how they begin, which are open, which were, and what they hold together."""

from collections.abc import Callable, Sequence

from multipick_epp.extproc.http2 import frames
from multipick_epp.extproc.http2.bounds import Allowance, Bounds, Shared
from multipick_epp.extproc.http2.frames import Code, PeerError, StreamError, expect
from multipick_epp.extproc.http2.grpc import CallError, Status, refusal
from multipick_epp.extproc.http2.headers import Field, HeaderReader, Request, TooLargeError, check_trailers, status
from multipick_epp.extproc.http2.output import Output
from multipick_epp.extproc.http2.stream import Call, Ended, Stream

_CLOSED = 1_000  # streams whose end is remembered

Serve = Callable[[Request, Stream], Call | CallError]
"""Who answers a request: a call, or why there is none."""


class Streams:
    """Invariant: `shared` counts exactly the streams in `open`, and their bytes."""

    def __init__(self, serve: Serve, bounds: Bounds, shared: Shared, output: Output, allowance: Allowance) -> None:
        self.open: dict[int, Stream] = {}
        self.held = 0  # bytes queued in them
        self.partial = 0  # of these, of messages that are not whole: nobody can take them before the rest is there
        self.last = 0  # the newest
        self.refuse_above = frames.WINDOW_MAX  # as our GOAWAY says
        self.headers = HeaderReader(bounds.header_list, allowance)
        self.bounds = bounds
        self.output = output
        self._serve = serve
        self._shared = shared
        self._allowance = allowance
        self._closed: dict[int, Ended] = {}
        self.ready: dict[Stream, None] = {}  # may push on what waits, once this turn is over
        self._young: dict[Stream, float] = {}  # without a message so far, and since when
        self._deadlines: dict[Stream, float] = {}

    def begin(self, number: int, block: bytes, ended: bool, now: float) -> None:
        """A header block came: of a new stream, or the trailers of one. Raises PeerError, StreamError."""
        if number <= self.last:
            self._trailers(number, block, ended)
            return
        self.last = number
        try:
            request = self.headers.request(block)
        except TooLargeError:
            self._answer_plainly(number, 431, ended)
            return
        if number > self.refuse_above:  # by our GOAWAY the peer knows that it was not taken
            self._allowance.take(1)
            self._remember(number, Ended.BY_US)
            return
        if len(self.open) >= self.bounds.streams or self._shared.streams >= self.bounds.all_streams:
            raise StreamError(Code.REFUSED_STREAM, "too many streams")
        stream = Stream(self, number, request)
        self.open[number] = stream
        self._shared.streams += 1
        self._young[stream] = now
        self._answer(stream, request, now)
        if ended and number in self.open:
            stream.ended()

    def find(self, number: int) -> Stream | None:
        """The stream, if it is open. Raises PeerError for one that never was."""
        stream = self.open.get(number)
        if stream is None:
            self._expect_once(number)
        return stream

    def late_data(self, number: int) -> None:
        """Data on a stream that is over. Raises StreamError where the peer should have known; PeerError as `find`."""
        self._expect_once(number)
        self._allowance.take(1)
        if self._closed.get(number) is not Ended.BY_US:
            raise StreamError(Code.STREAM_CLOSED, "data behind the end")

    def reset(self, number: int, code: Code) -> None:
        """End a stream at once, whatever it is."""
        stream = self.open.get(number)
        if stream is not None:
            stream.reset(code)
        else:
            self.output.write(frames.rst_stream(number, code))
            if number not in self._closed:
                self._remember(number, Ended.BY_US)

    def next_ready(self) -> Stream | None:
        """One that may push on what waits; comes once for each time it became so."""
        if not self.ready:
            return None
        stream = next(iter(self.ready))
        del self.ready[stream]
        return stream

    def overdue(self, now: float) -> None:
        """End those that began nothing, whose client's deadline is there, or that nobody takes an answer of."""
        for stream, since in tuple(self._young.items()):
            if now - since <= self.bounds.first_message_s:
                break  # the others are younger
            stream.reset(Code.CANCEL)
        for stream in [stream for stream, deadline in self._deadlines.items() if deadline < now]:
            del self._deadlines[stream]
            stream.fail(CallError(Status.DEADLINE_EXCEEDED, "the call's own deadline"))
        for stream in self.output.blocked:
            if stream.stalled_since is None:
                stream.stalled_since = now
            elif now - stream.stalled_since > self.bounds.stalled_s:
                stream.reset(Code.CANCEL)

    # For each stream.

    def may_go_on(self, stream: Stream) -> None:
        """It may push on what waits."""
        self.ready[stream] = None
        self.output.wake()

    def hold(self, count: int) -> None:
        """So many bytes more are queued in it, or less."""
        self.held += count
        self._shared.hold(count)

    def begun(self, stream: Stream) -> None:
        """Its first message came."""
        self._young.pop(stream, None)

    def gone(self, stream: Stream, how: Ended) -> None:
        """It ended."""
        del self.open[stream.id]
        self._shared.streams -= 1
        if not stream.begun:
            self._young.pop(stream, None)
        if self.ready:
            self.ready.pop(stream, None)
        if self._deadlines:
            self._deadlines.pop(stream, None)
        self.output.unblock(stream)
        self._remember(stream.id, how)

    def _answer(self, stream: Stream, request: Request, now: float) -> None:
        refused = refusal(request)
        if refused is not None:
            code, error = refused
            if error is None:
                stream.refuse(code)
            else:
                stream.fail(error)
            return
        answer = self._serve(request, stream)
        if isinstance(answer, CallError):
            stream.fail(answer)
            return
        stream.call_is(answer)
        if request.timeout_s is not None:
            self._deadlines[stream] = now + request.timeout_s

    def _expect_once(self, number: int) -> None:
        expect(number & 1 == 1 and number <= self.last, "frame on a stream that isn't there")

    def _trailers(self, number: int, block: bytes, ended: bool) -> None:
        fields = self._fields(block)  # also of a stream that is over: the peer's table may be in use
        stream = self.open.get(number)
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

    def _fields(self, block: bytes) -> Sequence[Field] | None:
        try:
            return self.headers.fields(block)
        except TooLargeError:
            return None

    def _answer_plainly(self, number: int, code: int, ended: bool) -> None:
        self._allowance.take(Allowance.RESET)
        flags = frames.END_HEADERS | frames.END_STREAM
        self.output.write(frames.frame(frames.HEADERS, flags, number, status(code)))
        if not ended:
            self.output.write(frames.rst_stream(number, Code.NO_ERROR))
        self._remember(number, Ended.BOTH if ended else Ended.BY_US)

    def _remember(self, number: int, how: Ended) -> None:
        self._closed[number] = how
        if len(self._closed) > _CLOSED:
            del self._closed[next(iter(self._closed))]
