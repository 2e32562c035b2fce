"""Runs one stream: carries out its effects against the transport below and the picker behind.

Knows neither gRPC nor HTTP/2. The transport pushes what arrives, and is given what to send; the picker decides beside
that, with the other requests of the same turn, so that a client who leaves meanwhile is noticed at once.
"""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from msgspec.structs import replace

from multipick_epp.extproc import errors
from multipick_epp.extproc.alarms import Alarms
from multipick_epp.extproc.chunks import read_chunk
from multipick_epp.extproc.collected import Bounds, Kept
from multipick_epp.extproc.effects import (
    Ask,
    Check,
    Effect,
    End,
    Missed,
    Refused,
    Send,
    Told,
)
from multipick_epp.extproc.interfaces import Failure, Observer, Stage, Transport
from multipick_epp.extproc.messages import MessageError, of_chunk, read_other
from multipick_epp.extproc.pick import NoPick, Pick, Picker, PickRequest
from multipick_epp.extproc.reserved import ReservedFields
from multipick_epp.extproc.stream import Phase, Stream
from multipick_epp.requests.reserved import Uncheckable
from multipick_epp.tasks.cohort import Cohort, Member
from multipick_epp.tokens.outcome import NoText

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What holds for all streams."""

    bounds: Bounds = field(default_factory=Bounds)
    pick_guard_s: float = 1.0  # the picker keeps a deadline of its own; past this one it is broken
    first_message_s: float = 10.0  # a gateway opens a stream to say something
    reserved: ReservedFields | None = field(default_factory=ReservedFields)  # None: clients may set them
    conformance: bool = False  # see `extproc.conformance`
    counts_output: bool = False  # the picker is told how many tokens an answer had, where that passes here


class Common:
    """What all streams of a server have in common."""

    def __init__(self, settings: StreamOptions) -> None:
        self.kept = Kept()
        self.open: set[Conversation] = set()
        self.silent = Alarms(settings.first_message_s)
        self.guards = Alarms(settings.pick_guard_s)
        self.cohort = Cohort()


class Conversation:
    """One stream in progress."""

    def __init__(
        self,
        transport: Transport,
        picker: Picker,
        observer: Observer,
        settings: StreamOptions,
        common: Common | None = None,
    ) -> None:
        """Without `common`, alone."""
        self._transport = transport
        self._picker = picker
        self._observer = observer
        self._settings = settings
        self._common = common = Common(settings) if common is None else common
        self._stream = Stream(
            settings.bounds, common.kept, hooks=settings.conformance, counts_output=settings.counts_output
        )
        self._decision: Member | None = None  # while the picker is asked
        self._asked: PickRequest | None = None  # what about, as long as its answer is waited for
        self._guard: Callable[[], None] | None = None  # what gives that up in time; the same
        self._body: bytes | None = None  # what goes on instead of the client's body, where that had reserved fields
        self._checked = False  # for them
        self._paused = False
        self._over = False
        self._since = perf_counter()
        common.open.add(self)
        observer.opened()
        self._silence: Callable[[], None] | None = self._hang_up  # what ends it where no message comes
        common.silent.set(self._silence)

    def message(self, data: bytes) -> None:
        """The gateway said this."""
        if self._silence is not None:
            self._heard()
        chunk = read_chunk(data)
        if chunk is not None and (answer := self._stream.pass_on(*chunk)) is not None:
            self._transport.send(answer)
            return
        try:
            message = read_other(data) if chunk is None else of_chunk(*chunk)
        except MessageError:
            self._observer.failed(Failure.UNREADABLE)
            self.stop()
            return
        self._step(self._stream.receive, message)
        if self._asked is not None and not self._paused and self._stream.holding:
            self._paused = True
            self._transport.pause()

    @property
    def undecided(self) -> bool:
        """See `Stream.undecided`."""
        return not self._over and self._stream.undecided

    def half_closed(self) -> None:
        """The gateway says no more, and listens on."""
        if self._silence is not None:
            self._heard()
        self._step(self._stream.half_closed)

    def stop(self) -> None:
        """End the stream from here: the gateway goes on by itself, or refuses what it can't finish without us."""
        self._step(self._stream.stop)
        self.closed()

    def closed(self) -> None:
        """The stream is over, in whichever way; may be called again."""
        if self._over:
            return
        self._over = True
        if self._silence is not None:
            self._heard()
        if self._guard is not None:
            self._abandon_pick()
        if self._stream.state is not Phase.ENDED:
            self._step(self._stream.closed)
        self._observer.closed()
        self._common.open.discard(self)

    def _step(self, event: Callable[..., list[Effect]], *about: object) -> None:
        """Something happened on the stream; carry out its effects."""
        told_all = True
        try:
            for effect in event(*about):
                if type(effect) is Send:
                    self._transport.send(effect.data)
                elif type(effect) is Ask:
                    self._ask(effect.request, effect.unread)
                elif type(effect) is End:
                    self._transport.end()
                elif type(effect) is Check:
                    self._look_through(effect.path, effect.body, effect.unread)
                elif type(effect) is Missed:
                    self._observer.undecided(effect.how)
                elif type(effect) is Refused:
                    self._observer.answered_here(effect.reason)
                else:
                    told_all &= self._tell(effect)
        except Exception:
            # Raising on would make a 500 of the request, also where the gateway is told to fail open.
            log.exception("a stream failed and is ended")
            told_all = False
        if not told_all:
            self._observer.failed(Failure.INTERNAL)
            self.stop()

    def _tell(self, effect: Told) -> bool:
        """Whether that went well; else it must not keep the picker from hearing of the release that comes behind."""
        try:
            effect.tell(self._picker)
        except Exception:
            log.exception("the picker failed at what it was told: its stream is ended")
            return False
        return True

    def _ask(self, request: PickRequest, unread: bool) -> None:
        self._lap(Stage.RECEIVE)
        self._count_unread(unread)
        self._asked = request
        self._begin(self._decide(request), lambda: self._give_up(request))

    def _count_unread(self, unread: bool) -> None:
        if unread and self._settings.reserved is not None:
            self._settings.reserved.passed_unread()

    def _begin(self, work: Coroutine[Any, Any, None], give_up: Callable[[], None]) -> None:
        """Do it, beside the stream; give it up where that takes too long."""
        self._guard = give_up
        self._common.guards.set(give_up)
        self._decision = self._common.cohort.begin(work)

    async def _decide(self, request: PickRequest) -> None:
        body = None if request.body is None else await self._clean(request.path, request.body)
        outcome = body if type(body) is NoPick else await self._pick(request, body)
        if self._asked is request:
            self._decision = None
            self._decided(outcome)
        else:  # nobody waits any more
            self._step(self._stream.picked, outcome)

    async def _clean(self, path: str, body: bytes) -> bytes | NoPick:
        """The body without the fields that no client may set, itself where there were none; or why it is refused."""
        reserved = self._settings.reserved
        if reserved is None:
            return body
        try:
            return await reserved.take_out(body)
        except Uncheckable:
            return errors.uncheckable(path)
        except NoText:
            return errors.unchecked(path)
        except Exception:
            log.exception("a body could not be checked and is refused")
            self._observer.failed(Failure.INTERNAL)
            return errors.unchecked(path)

    def _look_through(self, path: str, body: bytes, unread: bool) -> None:
        """What came behind the pick."""
        self._count_unread(unread)
        if unread or not body:
            self._step(self._stream.checked, body)
            return
        self._begin(self._clean_late(path, body), lambda: self._looked_through(errors.unchecked(path)))

    async def _clean_late(self, path: str, body: bytes) -> None:
        outcome = await self._clean(path, body)
        self._decision = None
        self._looked_through(outcome)

    def _looked_through(self, outcome: bytes | NoPick) -> None:
        self._abandon_pick()
        self._step(self._stream.checked, outcome)

    async def _pick(self, request: PickRequest, body: bytes | None) -> Pick | NoPick | None:
        """What the picker decides for the request with this body."""
        self._checked = True
        if body is not None and body is not request.body:
            self._body = body
            request = replace(request, body=body, body_bytes=len(body))
        try:
            return await self._picker.pick(request)
        except Exception:
            log.exception("the picker failed: the gateway chooses")
            self._observer.failed(Failure.PICK_RAISED)
            return None

    def _give_up(self, request: PickRequest) -> None:
        log.warning("the picker did not decide within %g s: the gateway chooses", self._settings.pick_guard_s)
        self._observer.failed(Failure.PICK_TIMEOUT)
        self._abandon_pick()
        self._decided(None if self._checked else errors.unchecked(request.path))

    def _decided(self, outcome: Pick | NoPick | None) -> None:
        self._abandon_pick()
        self._lap(Stage.PICK)
        if self._body is not None:
            outcome = _with_body(outcome, self._body)
        self._step(self._stream.picked, outcome)
        self._lap(Stage.REPLY)
        if self._paused:
            self._paused = False
            self._transport.resume()

    def _abandon_pick(self) -> None:
        if self._guard is not None:
            self._common.guards.off(self._guard)
            self._guard = None
        if self._decision is not None:
            self._decision.cancel()
            self._decision = None
        self._asked = None

    def _hang_up(self) -> None:
        self._observer.failed(Failure.SILENT)
        self.stop()

    def _heard(self) -> None:
        if self._silence is not None:
            self._common.silent.off(self._silence)
            self._silence = None

    def _lap(self, stage: Stage) -> None:
        now = perf_counter()
        self._observer.stage(stage, now - self._since)
        self._since = now


def _with_body(outcome: Pick | NoPick | None, body: bytes) -> Pick | NoPick:
    """The same with `body` in place of the client's, unless the picker has another; the gateway may choose, but not
    send on what the client sent.
    """
    if outcome is None:
        return Pick((), body=body)
    return replace(outcome, body=body) if isinstance(outcome, Pick) and outcome.body is None else outcome
