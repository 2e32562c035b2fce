"""Messages with more in them than any gateway sends: bounded, never an exception, never a stream that breaks."""

import asyncio
from typing import Any

import pytest
from gateway_messages import read
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.extproc.driver import Conversation, StreamOptions
from multipick_epp.extproc.effects import Undecided
from multipick_epp.extproc.interfaces import Failure, Stage
from multipick_epp.extproc.messages import MAX_SUBSET, MessageError, RequestHeaders, ResponseHeaders
from multipick_epp.extproc.pick import Ended, NoPick, Pick, PickRequest
from multipick_epp.extproc.usage import Usage
from multipick_epp.extproc.wire import MAX_OTHER_BYTES, SMALL_BYTES
from multipick_epp.proto.ext_proc_pb2 import BodySendMode, HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse
from multipick_epp.types import Endpoint, ReservationId

from tests.unit.extproc.decided import decided

SUBSET = ("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset")
SERVED = ("envoy.lb", "x-gateway-destination-endpoint-served")
PATH = (":path", b"/v1/completions")


def headers(*pairs: tuple[str, bytes], end: bool = False) -> ProcessingRequest:
    request = ProcessingRequest(request_headers=HttpHeaders(end_of_stream=end))
    request.protocol_config.request_body_mode = BodySendMode.BUFFERED
    for key, value in pairs:
        request.request_headers.headers.headers.add(key=key, raw_value=value)
    return request


def told(request: ProcessingRequest, place: tuple[str, str], value: Any) -> bytes:
    struct = Struct()
    struct.update({place[1]: value})
    request.metadata_context.filter_metadata[place[0]].CopyFrom(struct)
    return request.SerializeToString()


class Everything:
    """Wire, picker and observer of one stream."""

    def __init__(self) -> None:
        self.sent: list[ProcessingResponse] = []
        self.asked: list[PickRequest] = []
        self.failures: list[Failure] = []
        self.missed: list[Undecided] = []
        self.refused: list[str] = []
        self.calls: list[str] = []
        self.open = 0
        self.over = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.sent.append(ProcessingResponse.FromString(data))

    def end(self) -> None:
        self.over.set()

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    async def pick(self, request: PickRequest) -> Pick | NoPick:
        self.asked.append(request)
        return Pick((Endpoint("10.0.0.1:8000"),), ReservationId("r"))

    def served(self, reservation: ReservationId, endpoint: Endpoint) -> None:
        self.calls.append(f"served {endpoint}")

    def answered(self, reservation: ReservationId, status: int) -> None:
        self.calls.append(f"answered {status}")

    def first_byte(self, reservation: ReservationId) -> None:
        self.calls.append("first byte")

    def counted(self, reservation: ReservationId, usage: Usage) -> None:
        self.calls.append("counted")

    def release(self, reservation: ReservationId, ended: Ended) -> None:
        self.calls.append("release")

    def opened(self) -> None:
        self.open += 1

    def closed(self) -> None:
        self.open -= 1

    def stage(self, stage: Stage, seconds: float) -> None:
        pass

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def undecided(self, how: Undecided) -> None:
        self.missed.append(how)

    def answered_here(self, reason: str) -> None:
        self.refused.append(reason)


async def heard(*messages: bytes, options: StreamOptions | None = None) -> Everything:
    all_of_it = Everything()
    conversation = Conversation(all_of_it, all_of_it, all_of_it, options or StreamOptions())
    for message in messages:
        conversation.message(message)
        await decided(conversation)
    conversation.closed()
    assert all_of_it.open == 0
    return all_of_it


@pytest.mark.parametrize(
    "pairs",
    [
        (PATH, ("x-nul", b"a\0b\0")),
        (PATH, ("x-long", b"v" * (1 << 20))),
        ((":path", b"/" * (1 << 20)),),
        (PATH, ("x-bytes", bytes(range(256)))),
        (PATH, *((f"x-{number}", b"v") for number in range(10_000))),
        (PATH, *((f"x-gateway-destination-endpoint-{number}", b"v") for number in range(10_000))),
        (PATH, *(("content-length", b"\xff") for _ in range(10_000))),
    ],
)
async def test_headers_of_any_number_and_size_get_their_pick(pairs: tuple[tuple[str, bytes], ...]) -> None:
    got = await heard(headers(*pairs, end=True).SerializeToString())
    assert [reply.WhichOneof("response") for reply in got.sent] == ["request_headers"]
    assert got.sent[0].HasField("dynamic_metadata")
    assert (got.failures, got.calls) == ([], ["release"])


@pytest.mark.parametrize(
    "data",
    [
        headers(*(("a", b"") for _ in range(20_001))).SerializeToString(),
        headers(("a", b"v" * (MAX_OTHER_BYTES + 1))).SerializeToString(),
        b"\x12\x00" * SMALL_BYTES,  # fields without end
        ProcessingRequest(request_body=HttpBody(body=b"x" * SMALL_BYTES)).SerializeToString()
        + b"\x22\x02\x10\x01" * 99,
        b"\x22\xff\xff\xff\x7f" + b"x" * SMALL_BYTES,  # longer than the message
        b"\x1a" + b"\xff" * SMALL_BYTES,  # a length without end
        b"\x22\xc8\x9a\x0c" + b"\x10\x01" * 99_940,  # a body of flags
    ],
)
async def test_what_no_gateway_sends_ends_its_stream_in_good_order(data: bytes) -> None:
    with pytest.raises(MessageError):
        read(data)
    got = await heard(data)
    assert (got.failures, got.sent, got.over.is_set()) == ([Failure.UNREADABLE], [], True)


def test_a_large_body_is_read_whole() -> None:
    body = b"x" * (5 << 20)
    part = read(ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True)).SerializeToString()).part
    assert getattr(part, "data", None) == body


@given(st.binary(min_size=1, max_size=60), st.integers(0, 60))
@settings(deadline=None, derandomize=True)
def test_any_large_message_is_a_message_or_a_message_error(junk: bytes, at: int) -> None:
    data = ProcessingRequest(request_body=HttpBody(body=b"x" * SMALL_BYTES)).SerializeToString()
    for message in (junk + data, data + junk, data[:at] + junk + data[at:], junk * SMALL_BYTES):
        try:
            read(message)
        except MessageError:
            continue


@pytest.mark.parametrize("form", ["list", "text"])
def test_a_subset_of_any_length_is_bounded(form: str) -> None:
    names = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:8000" for n in range(100_000)]
    message = read(told(headers(PATH), SUBSET, names if form == "list" else ",".join(names)))
    assert isinstance(message.part, RequestHeaders)
    assert message.part.subset == tuple(names[:MAX_SUBSET])


@pytest.mark.parametrize(
    "junk",
    ["x", "10.0.0.1", "10.0.0.1:", "10.0.0.1:8000,10.0.0.2:8000", "evil.example:80", "a" * (1 << 20), "10.0.0.1:8000\n",
     "10.0.0.1:8000\0", ["10.0.0.1:8000"], 7, None, "[::1]", "[fe80::1%eth0]:80"],
)  # fmt: skip
async def test_a_served_endpoint_that_is_none_is_ignored(junk: Any) -> None:
    response = ProcessingRequest(response_headers=HttpHeaders())
    assert read(told(response, SERVED, junk)).part == ResponseHeaders(False, None)
    got = await heard(headers(PATH, end=True).SerializeToString(), told(response, SERVED, junk))
    assert (got.failures, got.calls) == ([], ["release"])


def test_a_served_endpoint_may_have_an_address_of_either_kind() -> None:
    for endpoint in ("10.0.0.1:8000", "[fd00::1]:8000"):
        response = ProcessingRequest(response_headers=HttpHeaders())
        assert read(told(response, SERVED, endpoint)).part == ResponseHeaders(False, Endpoint(endpoint))


async def test_a_body_of_single_bytes_is_kept_as_bytes() -> None:
    first = headers(PATH)
    first.protocol_config.request_body_mode = BodySendMode.FULL_DUPLEX_STREAMED
    piece = ProcessingRequest(request_body=HttpBody(body=b"x")).SerializeToString()
    last = ProcessingRequest(request_body=HttpBody(end_of_stream=True)).SerializeToString()
    got = await heard(first.SerializeToString(), *[piece] * 3_000, last)
    assert got.asked[0].body == b"x" * 3_000
    assert [r.request_body.response.body_mutation.streamed_response.body for r in got.sent[1:]] == [b"x" * 3_000]


async def test_a_stream_on_which_nothing_is_said_is_ended() -> None:
    silent = Everything()
    Conversation(silent, silent, silent, StreamOptions(first_message_s=0.01))
    async with asyncio.timeout(60):
        await silent.over.wait()
    assert (silent.failures, silent.open, silent.sent) == ([Failure.SILENT], 0, [])


async def test_a_stream_on_which_something_was_said_may_be_silent() -> None:
    spoken = Everything()
    conversation = Conversation(spoken, spoken, spoken, StreamOptions(first_message_s=0.01))
    conversation.message(headers(PATH, end=True).SerializeToString())
    silent = Everything()
    Conversation(silent, silent, silent, StreamOptions(first_message_s=0.02))
    async with asyncio.timeout(60):
        await silent.over.wait()  # which began later and may wait longer
    assert (spoken.failures, spoken.over.is_set()) == ([], False)
    conversation.closed()
