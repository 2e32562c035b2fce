"""One stream against a picker that misbehaves, on a transport that only remembers."""

import asyncio

import pytest
from multipick_epp.extproc import alarms
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import Conversation, StreamOptions
from multipick_epp.extproc.effects import Undecided
from multipick_epp.extproc.interfaces import Failure, Stage
from multipick_epp.extproc.messages import SERVED_KEY
from multipick_epp.extproc.pick import Ended, NoPick, Pick, PickRequest
from multipick_epp.extproc.usage import Usage
from multipick_epp.proto.ext_proc_pb2 import (
    BodySendMode,
    HeaderMap,
    HeaderValue,
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
    ProcessingResponse,
)
from multipick_epp.types import Endpoint, ReservationId

from tests.unit.extproc.decided import decided

PICK = Pick((Endpoint("10.0.0.1:8000"),), ReservationId("r"))


class Wire:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.calls: list[str] = []

    def send(self, data: bytes) -> None:
        self.sent.append(ProcessingResponse.FromString(data).WhichOneof("response"))

    def end(self) -> None:
        self.calls.append("end")

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


class Picker:
    def __init__(self) -> None:
        self.outcome: asyncio.Future[Pick | NoPick] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()
        self.calls: list[str] = []
        self.broken = False
        self.stubborn = False
        self.late: Pick | NoPick = PICK  # what it says where it is stubborn

    async def pick(self, request: PickRequest) -> Pick | NoPick:
        self.asked.set()
        try:
            return await self.outcome
        except asyncio.CancelledError:
            if self.stubborn:
                return self.late
            raise

    def served(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        self._note("served")

    def answered(self, reservation: ReservationId, status: int) -> None:
        self._note("answered")

    def first_byte(self, reservation: ReservationId) -> None:
        self._note("first_byte")

    def counted(self, reservation: ReservationId, usage: Usage) -> None:
        self._note(f"counted {usage.output}")

    def release(self, reservation: ReservationId, ended: Ended) -> None:
        self._note("release")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.broken:
            raise RuntimeError("the picker is broken")


class Observer:
    def __init__(self) -> None:
        self.open = 0
        self.failures: list[Failure] = []
        self.missed: list[Undecided] = []
        self.refused: list[str] = []
        self.stages: list[Stage] = []

    def opened(self) -> None:
        self.open += 1

    def closed(self) -> None:
        self.open -= 1

    def stage(self, stage: Stage, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append(stage)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def undecided(self, how: Undecided) -> None:
        self.missed.append(how)

    def answered_here(self, reason: str) -> None:
        self.refused.append(reason)


class Scene:
    def __init__(self) -> None:
        self.wire, self.picker, self.observer = Wire(), Picker(), Observer()
        settings = StreamOptions(Bounds(max_read_bytes=100), pick_guard_s=60)
        self.conversation = Conversation(self.wire, self.picker, self.observer, settings)

    def hear(self, request: ProcessingRequest) -> None:
        self.conversation.message(request.SerializeToString())

    async def ask(self) -> None:
        self.hear(ProcessingRequest(request_headers=HttpHeaders(end_of_stream=True)))
        await self.picker.asked.wait()

    async def picked(self, outcome: Pick | NoPick = PICK) -> None:
        self.picker.outcome.set_result(outcome)
        await decided(self.conversation)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_a_decision_has_three_stages(scene: Scene) -> None:
    await scene.ask()
    await scene.picked()
    assert scene.observer.stages == [Stage.RECEIVE, Stage.PICK, Stage.REPLY]
    assert scene.wire.sent == ["request_headers"]


async def test_closing_twice_releases_and_counts_once(scene: Scene) -> None:
    await scene.ask()
    await scene.picked()
    scene.conversation.closed()
    scene.conversation.stop()
    scene.conversation.closed()
    assert scene.picker.calls == ["release"]
    assert scene.observer.open == 0


async def test_a_stream_that_closes_during_the_pick_cancels_it(scene: Scene) -> None:
    await scene.ask()
    scene.conversation.closed()
    await decided(scene.conversation)
    assert scene.picker.outcome.cancelled()
    assert (scene.wire.sent, scene.picker.calls, scene.observer.failures) == ([], [], [])


async def test_a_pick_that_comes_although_it_was_cancelled_is_released(scene: Scene) -> None:
    scene.picker.stubborn = True
    await scene.ask()
    scene.conversation.closed()
    await decided(scene.conversation)
    assert (scene.wire.sent, scene.picker.calls) == ([], ["release"])
    assert scene.observer.open == 0


NOBODY_READY = NoPick(503, b"{}", "no-ready-endpoint")


async def test_a_request_that_is_refused_is_counted_by_its_reason(scene: Scene) -> None:
    await scene.ask()
    await scene.picked(NOBODY_READY)
    assert (scene.wire.sent, scene.observer.refused) == (["immediate_response"], ["no-ready-endpoint"])


async def test_so_is_one_that_the_stream_itself_refuses(scene: Scene) -> None:
    length = HeaderMap(headers=[HeaderValue(key="content-length", raw_value=b"%d" % (65 << 20))])
    scene.hear(ProcessingRequest(request_headers=HttpHeaders(headers=length)))
    assert (scene.wire.sent, scene.observer.refused) == (["immediate_response"], ["body_too_large"])


async def test_and_one_that_is_given_up_for_a_drain(scene: Scene) -> None:
    scene.hear(ProcessingRequest(request_headers=HttpHeaders()))
    scene.conversation.stop()
    assert (scene.wire.sent, scene.observer.refused) == (["immediate_response"], ["draining"])


async def test_a_refusal_that_nobody_waits_for_is_none(scene: Scene) -> None:
    scene.picker.stubborn, scene.picker.late = True, NOBODY_READY
    await scene.ask()
    scene.conversation.closed()
    await decided(scene.conversation)
    assert (scene.wire.sent, scene.observer.refused) == ([], [])


async def test_a_broken_picker_is_logged_and_ends_its_stream_only(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.ask()
    await scene.picked()
    scene.picker.broken = True
    scene.hear(ProcessingRequest(response_headers=HttpHeaders(end_of_stream=True)))
    assert scene.picker.calls == ["release"]
    assert scene.observer.failures == [Failure.INTERNAL]
    assert scene.wire.calls == ["end"]
    assert scene.observer.open == 0
    assert "the picker is broken" in caplog.text


@pytest.mark.parametrize("fails", ["served", "answered"])
async def test_a_picker_that_fails_at_one_thing_it_is_told_hears_of_the_release_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    await scene.ask()
    await scene.picked()
    monkeypatch.delattr(Picker, fails)
    answer = ProcessingRequest(response_headers=HttpHeaders(end_of_stream=True))
    answer.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    answer.metadata_context.filter_metadata["envoy.lb"].update({SERVED_KEY: "10.0.0.1:8000"})
    scene.hear(answer)
    assert scene.picker.calls[-1] == "release"
    assert scene.observer.failures == [Failure.INTERNAL]
    assert scene.wire.calls == ["end"]


async def test_who_stood_still_before_a_decision_began_does_not_give_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop looks at its timers first when a process goes on."""
    now = 0.0
    monkeypatch.setattr(alarms, "monotonic", lambda: now)
    scene = Scene()
    scene.hear(ProcessingRequest(request_headers=HttpHeaders(end_of_stream=True)))
    now = 61.0
    scene.conversation._common.guards._look()
    await scene.picker.asked.wait()
    await scene.picked()
    assert scene.observer.failures == []
    assert scene.wire.sent == ["request_headers"]


async def test_a_body_too_large_to_read_pauses_the_gateway_while_the_picker_thinks(scene: Scene) -> None:
    first = ProcessingRequest(request_headers=HttpHeaders())
    first.protocol_config.request_body_mode = BodySendMode.FULL_DUPLEX_STREAMED
    scene.hear(first)
    for _ in range(3):  # a transport may have more in hand when it is told to pause
        scene.hear(ProcessingRequest(request_body=HttpBody(body=b"x" * 90)))
    await scene.picker.asked.wait()
    assert scene.wire.calls == ["pause"]
    await scene.picked()
    assert scene.wire.calls == ["pause", "resume"]
    assert scene.wire.sent == ["request_headers", "request_body"]


async def test_bytes_that_are_no_message_end_the_stream_in_good_order(scene: Scene) -> None:
    scene.conversation.message(b"\xff\xff")
    assert scene.observer.failures == [Failure.UNREADABLE]
    assert scene.wire.calls == ["end"]
    assert scene.observer.open == 0
