"""One HTTP request as the gateway tells it: the protocol as a state machine, without I/O.

Rules
  1. All that decides what is answered, and when, is in this file; for a response, in `response`. It knows bytes only
     as `messages` and `replies` make them, and neither the transport nor the picker's insides.
  2. Every method takes what happened and returns the effects it has, in the order in which they must be carried out.
  3. A reservation that comes in goes out exactly once, in a `Release`, whatever happens in between.

Theory of operation
  The two directions are independent, as they are in Envoy: a response may begin before the request was decided (the
  gateway's own error page), and each message wants its answer in its own direction, in order.

  *Request.* The destination can go out once only, and how depends on the mode that the gateway chose for the body:

    body mode              pick when                        the pick goes out with
    none, streamed         headers are there, body unexplained   the headers' answer
    buffered(_partial)     the body is there                the body's answer; the headers are answered at once,
                                                            else the gateway never sends the body
    full duplex            the body ends, or is too much    the headers' answer, withheld until then; the body
                           to be kept                       follows, and without it the gateway has none
    any, no body           headers are there                the headers' answer
    full duplex, and the   headers are there                the headers' answer; what the client says then is looked
    client waits for an                                     through and sent on once it is whole, or, behind an
    answer first                                            upgrade, passed on as it comes

  In full duplex no message has an answer of its own: what goes on is what we send. In all other modes each message
  has one. What the gateway sends while the pick is under way is owed, and sent right behind the pick. The transport is
  asked to hold the rest (`holding`) where that could be much.

  *Response.* Each message is answered at once by its kind and mode. Once it ended, so did the request.

  *Half-close.* The gateway says no more, and listens on. Envoy does so when all is said, and when its client left: it
  tells in its first message which modes it chose. A gateway that tells none (NGINX Gateway Fabric) asks so: headers and
  body, half-close, and it shows no response. It goes on with its pick out of our sight.

    state       event                               next        effects
    NEW         headers: no body, or unexplained body    PICKING     Ask
    NEW         headers: body to come               BODY        Send in buffered modes
    NEW, BODY   larger than max_body_bytes          ENDED       Send (413), Refused, End
    BODY        chunk, more to come                 BODY
    BODY        body complete or too large to read  PICKING     Ask
    PICKING     chunk, trailers                     PICKING     (owed)
    PICKING     picked: Pick, or nothing            FORWARDED   Send: the pick, and what is owed
    PICKING     picked: NoPick                      ENDED       Send (error), Refused, End
    PICKING     picked, by the headers: Pick        LATE        Send
    LATE        body complete or too large to read  CHECKING    Check
    CHECKING    checked: the body, or NoPick        FORWARDED   Send: the body; or ENDED: Send (error), Refused, End
    FORWARDED   chunk, trailers                     FORWARDED   Send
    any         response headers, chunk, trailers   the same    Send, Served, Answered, FirstByte, Counted, Release
    PICKING     half-closed                         PICKING     (End is owed behind the pick)
    BODY        half-closed, by no Envoy            PICKING     Ask: that was the body's end
    otherwise   half-closed                         ENDED       Release, End
    any         stop                                ENDED       Release, End; Send (503), Refused if that loses a body
    any         closed                              ENDED       Release
    otherwise   anything                            the same    Send, where the message has a plain answer
"""

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from multipick_epp.extproc import conformance, errors, replies
from multipick_epp.extproc.collected import Bounds, Collected, Kept
from multipick_epp.extproc.effects import (
    Ask,
    Check,
    Effect,
    End,
    Missed,
    Refused,
    Release,
    Send,
    Undecided,
)
from multipick_epp.extproc.messages import (
    BodyMode,
    GatewayMessage,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from multipick_epp.extproc.pick import Ended, NoPick, Pick, PickRequest
from multipick_epp.extproc.response import Response
from multipick_epp.extproc.waiting import expects_continue, upgrades
from multipick_epp.requests.unnamed import path_by_headers

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_OWED = 256
"""Messages that wait for their answer until the pick is there; the transport holds what comes after them."""


class Phase(Enum):
    """How far the request is."""

    NEW = auto()
    BODY = auto()  # its body is collected
    PICKING = auto()
    LATE = auto()  # the gateway has its destination; its client's body is collected
    CHECKING = auto()  # that body is looked through
    FORWARDED = auto()  # the gateway has all that it needs
    ENDED = auto()


class Owed(Enum):
    """A message that is answered behind the pick."""

    HEADERS = auto()
    BODY = auto()  # one for each message; in full duplex one for all that is collected
    TRAILERS = auto()


# Read from here: an enum's attribute costs as much as a short call.
_NEW, _BODY, _PICKING, _LATE, _CHECKING, _FORWARDED, _ENDED = Phase
_OWED_HEADERS, _OWED_BODY, _OWED_TRAILERS = Owed
_FULL_DUPLEX: Final = BodyMode.FULL_DUPLEX_STREAMED


class Stream:
    """One stream: give it what happened, carry out what it returns."""

    def __init__(
        self, bounds: Bounds, kept: Kept | None = None, *, hooks: bool = False, counts_output: bool = False
    ) -> None:
        """`kept` is shared by all streams of a server; without it the stream counts for itself.

        `hooks`: with those of `extproc.conformance`. `counts_output`: look for the engine's count of tokens in each
        response that passes, and not only where the pick wants it.
        """
        self.state = _NEW
        self._bounds = bounds
        self._hooks = hooks
        self._mode: BodyMode = _FULL_DUPLEX  # for a gateway that doesn't say: so the protocol prescribes
        self._duplex = True
        self._said_modes = False
        self._said_all = False  # it half-closed
        self._left = False  # it was counted as gone before the pick
        self._headers: Mapping[str, str] = {}  # of the request, until it is forwarded
        self._path = ""
        self._subset: tuple[str, ...] | None = None
        self._body = Collected(bounds, Kept() if kept is None else kept)
        self._request_ended = False
        self._readable = False  # the picker was given the body
        self._owed: list[Owed] = []  # in the order in which the messages came
        self._looked_at = 0  # bytes of the body
        self._late = False  # picked by its headers, though a body is to come
        self._response = Response(hooks=hooks, counts_output=counts_output)
        # The answer to a chunk that wants nothing else done: most of a streamed response. None: it is to be received.
        self.pass_on = self._response.pass_on

    @property
    def holding(self) -> bool:
        """The rest of the body should wait until the pick is there: all that comes has to be kept, or answered."""
        if self.state is not _PICKING:
            return False
        return (self._duplex and self._body.much) or len(self._owed) > MAX_OWED

    def receive(self, message: GatewayMessage) -> list[Effect]:
        """The gateway said something."""
        state, part = self.state, message.part
        if state is _ENDED:
            return []
        if message.modes is not None and state is _NEW:
            self._mode, self._said_modes = message.modes.request_body, True
            self._duplex = self._mode is _FULL_DUPLEX
            self._response.duplex = message.modes.response_body is _FULL_DUPLEX
        if type(part) is ResponseBody:
            return self._response.body(part)
        if type(part) is RequestBody:
            return self._request_body(part)
        if type(part) is RequestHeaders:
            return self._request_headers(part)
        if type(part) is ResponseHeaders:
            return self._response.begin(part, state is not _NEW)
        if type(part) is RequestTrailers:
            return self._request_trailers()
        if type(part) is ResponseTrailers:
            return self._response.trailers()
        return []

    def picked(self, outcome: Pick | NoPick | None) -> list[Effect]:
        """The picker decided. None: it failed, and the gateway has to choose by itself.

        A pick that nobody waits for any more is released.
        """
        if self.state is not _PICKING:
            if isinstance(outcome, Pick) and outcome.reservation is not None:
                return [Release(outcome.reservation, Ended.ABORTED)]
            return []
        if isinstance(outcome, Pick):
            pick = outcome
        elif outcome is None or self._response.begun:
            pick = Pick(())
        else:
            return self._refuse(outcome)
        self._response.decided(pick)
        effects: list[Effect] = [Send(data) for data in self._forward(pick)]
        if self._response.ended:
            effects += self._response.release()
        if self._late:
            self._request_ended |= self._said_all
            return effects + self._check() if self._request_ended or self._body.much else effects
        return effects + self._finish() if self._said_all else effects

    def checked(self, outcome: bytes | NoPick) -> list[Effect]:
        """The body was looked through: what goes on instead, or why it can't."""
        if self.state is not _CHECKING:
            return []
        if isinstance(outcome, NoPick):  # where an answer is under way, it is the request that is cut
            return self._finish() if self._response.begun else self._refuse(outcome)
        self._late = False
        self._body.replace(self._looked_at, outcome)
        effects: list[Effect] = [Send(data) for data in self._forward(Pick(()))]
        return effects + self._finish() if self._said_all else effects

    def half_closed(self) -> list[Effect]:
        """The gateway says no more, and listens on: what was asked is answered, then the stream ends."""
        if self.state is _ENDED:
            return []
        self._said_all = True
        if self.state in (_BODY, _LATE) and not self._said_modes:
            self._request_ended = True
            return self._ask() if self.state is _BODY else self._check()
        if self.state in (_PICKING, _CHECKING):
            return self._leave() if self._said_modes else []
        return [*self.closed(), End()]

    def stop(self) -> list[Effect]:
        """We have to end the stream. A request whose body only we can forward is refused, else it would be cut."""
        if self.state is _ENDED:
            return []
        if self._holds_body:
            return self._refuse(errors.draining(self._path))
        return self._finish()

    @property
    def undecided(self) -> bool:
        """The request waits for us, or is about to be told."""
        return self.state in (_NEW, _PICKING) or self._holds_body

    def closed(self) -> list[Effect]:
        """The gateway ended the stream, in whichever way: request or client are gone."""
        return [*self._leave(), *self._over()]

    @property
    def _holds_body(self) -> bool:
        """A part of the request's body is here alone, or has to come by us."""
        underway = self.state not in (_NEW, _ENDED)
        return underway and self._duplex and not (self._forwarded_whole or self._response.begun)

    @property
    def _forwarded_whole(self) -> bool:
        return self.state is _FORWARDED and self._request_ended

    def _request_headers(self, message: RequestHeaders) -> list[Effect]:
        if self.state is not _NEW:
            return [Send(replies.CONTINUE_REQUEST_HEADERS)]
        self._headers = message.headers
        self._path = message.headers.get(":path") or path_by_headers(message.headers)
        self._subset = message.subset
        if self._hooks:
            self._subset = conformance.selection(message.headers, message.subset)
        self._request_ended = message.end
        if not message.end and self._declared_size() > self._bounds.max_body_bytes:
            return self._refuse(errors.too_large(self._path, self._bounds.max_body_bytes))
        unexplained = not self._duplex and self._mode in (BodyMode.NONE, BodyMode.STREAMED)
        self._late = self._duplex and not message.end and expects_continue(message.headers)
        if message.end or unexplained or self._late or (self._duplex and upgrades(message.headers)):
            self._owed.append(_OWED_HEADERS)
            return self._ask()
        self.state = _BODY
        if self._duplex:
            self._owed.append(_OWED_HEADERS)
            return []
        return [Send(replies.request_headers((), {}, replies.reserved(self._headers)))]

    def _request_body(self, message: RequestBody) -> list[Effect]:
        self._request_ended |= message.end
        if self.state in (_NEW, _FORWARDED):
            if self._duplex:
                return [Send(data) for data in replies.chunks("request_body", message.data, message.end)]
            return [Send(replies.CONTINUE_REQUEST_BODY)]
        self._body.size += len(message.data)
        if not self._duplex or _OWED_BODY not in self._owed:
            self._owed.append(_OWED_BODY)
        if self._duplex or (self.state is _BODY and self._body.short):
            self._body.keep(message.data)
        if self.state in (_PICKING, _CHECKING):
            return []
        if self._body.too_large:
            return self._refuse(errors.too_large(self._path, self._bounds.max_body_bytes))
        if self._duplex and not (message.end or self._body.much):
            return []
        return self._check() if self.state is _LATE else self._ask()

    def _request_trailers(self) -> list[Effect]:
        self._request_ended = True
        if self.state in (_NEW, _FORWARDED):
            return [Send(replies.request_trailers(()))]
        self._owed.append(_OWED_TRAILERS)
        if self.state is _LATE:
            return self._check()
        return self._ask() if self.state is _BODY else []

    def _ask(self) -> list[Effect]:
        self.state = _PICKING
        whole = self._request_ended or self._mode is BodyMode.BUFFERED
        self._readable = whole and self._body.size > 0 and self._body.short
        request = PickRequest(
            method=self._headers.get(":method", ""),
            path=self._path,
            headers=self._headers,
            body=self._body.data if self._readable else None,
            body_bytes=self._body.size or self._declared_size(),
            subset=self._subset,
        )
        unread = not self._readable and (self._body.size > 0 or not self._request_ended)
        return [Ask(request, unread)]

    def _check(self) -> list[Effect]:
        self.state = _CHECKING
        self._looked_at = self._body.length
        return [Check(self._path, self._body.data, unread=not self._request_ended)]

    def _forward(self, pick: Pick) -> list[bytes]:
        replacement = pick.body if self._readable else None
        ended_by_body = self._request_ended and _OWED_TRAILERS not in self._owed
        destination, extra = pick.endpoints, pick.request_headers
        if replacement is not None and "content-length" in self._headers:  # Envoy refuses a length that is not true
            extra = {**extra, "content-length": str(len(replacement))}
        answers: list[bytes] = []
        owed_now, self._owed = (self._owed[:1], self._owed[1:]) if self._late else (self._owed, [])
        for owed in owed_now:
            if owed is _OWED_HEADERS:
                answers.append(replies.request_headers(destination, extra, replies.reserved(self._headers)))
            elif owed is _OWED_TRAILERS:
                answers.append(replies.request_trailers(destination))
            elif self._duplex:
                body = self._body.data if replacement is None else replacement
                answers += replies.chunks("request_body", body, ended_by_body)
            else:
                answers.append(replies.request_body(destination, extra, replacement))
            destination, extra = (), {}  # once is enough
        self.state = _LATE if self._late else _FORWARDED
        if not self._late:
            self._body.forget()
        self._headers = {}
        return answers

    def _refuse(self, answer: NoPick) -> list[Effect]:
        return [Send(replies.immediate(answer)), Refused(answer.reason), *self._finish()]

    def _leave(self) -> list[Effect]:
        if self._left or self._response.begun or self.state not in (_BODY, _PICKING):
            return []
        self._left = True
        return [Missed(Undecided.LEFT)]

    def _finish(self) -> list[Effect]:
        return [*self._over(), End()]

    def _over(self) -> list[Effect]:
        self.state = _ENDED
        self._body.forget()
        return self._response.release(unseen=self._said_all and not self._said_modes)

    def _declared_size(self) -> int:
        length = self._headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else 0
