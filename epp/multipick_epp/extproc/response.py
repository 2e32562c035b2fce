"""One HTTP response as the gateway tells it, and the reservation that lasts as long.

Each message is answered at once, by its kind and mode. A reservation that comes in by `decided` goes out exactly once,
in a `Release`.
"""

from typing import TYPE_CHECKING

from multipick_epp.extproc import conformance, replies
from multipick_epp.extproc.chunks import Side, write_chunk
from multipick_epp.extproc.effects import Answered, Counted, Effect, FirstByte, Missed, Release, Send, Served, Undecided
from multipick_epp.extproc.pick import Ended, Pick
from multipick_epp.extproc.usage import Tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multipick_epp.extproc.messages import ResponseBody, ResponseHeaders
    from multipick_epp.types import ReservationId

FIRST_ERROR = 400
"""The lowest HTTP status that is one."""


class Response:
    """The answering direction of one stream."""

    __slots__ = (
        "_failed",
        "_first_byte_seen",
        "_headers",
        "_hooks",
        "_passing",
        "_picked",
        "_reservation",
        "_tail",
        "begun",
        "duplex",
        "ended",
    )

    def __init__(self, *, hooks: bool, counts_output: bool) -> None:
        """As `Stream`."""
        self.begun = False
        self.ended = False
        self.duplex = True  # what goes on to the client is what we send
        self._passing = False  # what comes next wants nothing but to be passed on
        self._hooks = hooks
        self._picked = False  # the gateway was told an endpoint
        self._reservation: ReservationId | None = None  # to be released
        self._headers: Mapping[str, str] = {}  # the pick's
        self._failed = False  # it is an error: the prompt was not computed
        self._first_byte_seen = False
        self._tail = Tail() if counts_output else None

    def decided(self, pick: Pick) -> None:
        """The gateway is told this."""
        self._picked = bool(pick.endpoints)
        self._reservation = pick.reservation
        self._headers = pick.response_headers
        if pick.counts and self._tail is None:
            self._tail = Tail()

    def pass_on(self, side: Side, data: bytes, end: bool) -> bytes | None:
        """The answer to a chunk that wants nothing else done; None for any other."""
        if end or not self._passing or side != "response_body":
            return None
        if self.duplex and not 0 < len(data) <= replies.CHUNK_BYTES:
            return None
        if self._tail is not None:
            self._tail.feed(data)
        if not self.duplex:
            return replies.CONTINUE_RESPONSE_BODY
        return write_chunk(side, data, False)

    def begin(self, message: "ResponseHeaders", asked: bool) -> list[Effect]:
        """It began. `asked`: there was a request before it."""
        self.begun = True
        headers = self._headers
        if self._hooks:
            headers = {**headers, **conformance.served(message.served)}
        effects: list[Effect] = [Send(replies.response_headers(headers))]
        if message.served is not None:
            if self._reservation is not None:
                effects.append(Served(self._reservation, message.served))
            elif not self._picked and asked:
                effects.append(Missed(Undecided.SERVED))
        if message.status is not None:
            self._failed = message.status >= FIRST_ERROR
            if self._reservation is not None:
                effects.append(Answered(self._reservation, message.status))
        return effects + self.end() if message.end else effects

    def body(self, message: "ResponseBody") -> list[Effect]:
        """A part of its body."""
        effects: list[Effect]
        if self.duplex:
            effects = [Send(data) for data in replies.chunks("response_body", message.data, message.end)]
        else:
            effects = [Send(replies.CONTINUE_RESPONSE_BODY)]
        if self._tail is not None:
            self._tail.feed(message.data)
        if message.data and not self._first_byte_seen:
            self._first_byte_seen = self._passing = True
            if self._reservation is not None:
                effects.append(FirstByte(self._reservation))
        return effects + self.end() if message.end else effects

    def trailers(self) -> list[Effect]:
        """They are its end."""
        return [Send(replies.CONTINUE_RESPONSE_TRAILERS), *self.end()]

    def end(self) -> list[Effect]:
        """It passed whole, and so the request is over."""
        self.ended = True
        return self.release()

    def release(self, unseen: bool = False) -> list[Effect]:
        """The request is over, or goes on `unseen`."""
        self._passing = False
        if self._reservation is None:
            return []
        reservation, self._reservation = self._reservation, None
        release = Release(reservation, self._how(unseen))
        usage = self._tail.usage() if self._tail is not None else None
        return [release] if usage is None else [Counted(reservation, usage), release]

    def _how(self, unseen: bool) -> Ended:
        if self._failed:
            return Ended.FAILED
        if self.ended:
            return Ended.WHOLE
        if self.begun:
            return Ended.CLOSED
        return Ended.UNSEEN if unseen else Ended.ABORTED
