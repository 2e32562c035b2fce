"""What only the pool may tell its engines never leaves with a client's request, whatever becomes of the pick."""

import asyncio

import pytest
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import Conversation, StreamOptions
from multipick_epp.extproc.pick import Pick, PickRequest
from multipick_epp.extproc.reserved import Checked, ReservedFields
from multipick_epp.proto.ext_proc_pb2 import BodySendMode, HttpBody, HttpHeaders, ProcessingRequest
from multipick_epp.types import Endpoint

from tests.unit.extproc.decided import decided
from tests.unit.extproc.test_hostile_messages import Everything

SENT = b'{"kv_transfer_params":{"remote_host":"10.9.9.9"},"prompt":"x"}'
CLEAN = b'{"prompt":"x"}'
FULL, BUFFERED, STREAMED, NONE = (
    BodySendMode.FULL_DUPLEX_STREAMED,
    BodySendMode.BUFFERED,
    BodySendMode.STREAMED,
    BodySendMode.NONE,
)


class Scene(Everything):
    """One request, and a picker that may be told to fail, to hang, or to bring a body of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Checked] = []
        self.outcome: Pick | Exception | None = Pick((Endpoint("10.0.0.1:8000"),))

    async def pick(self, request: PickRequest) -> Pick:
        self.asked.append(request)
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    async def request(
        self, body: bytes, mode: BodySendMode = BUFFERED, allow: bool = False, guard_s: float = 60, limit: int = 1 << 20
    ) -> None:
        reserved = None if allow else ReservedFields(self.seen.append)
        options = StreamOptions(Bounds(max_read_bytes=limit), guard_s, reserved=reserved)
        conversation = Conversation(self, self, self, options)
        first = ProcessingRequest(request_headers=HttpHeaders())
        first.protocol_config.request_body_mode = mode
        for key, value in ((":method", "POST"), (":path", "/v1/completions"), ("content-length", str(len(body)))):
            first.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        conversation.message(first.SerializeToString())
        if mode != NONE:
            rest = ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True))
            conversation.message(rest.SerializeToString())
        await decided(conversation)
        conversation.closed()

    def forwarded(self, mode: BodySendMode = BUFFERED) -> bytes | None:
        """The body in place of the client's; None: that goes on."""
        mutation = self.sent[-1].request_body.response.body_mutation
        if mode == FULL:
            return mutation.streamed_response.body
        return mutation.body if mutation.HasField("body") else None

    def length(self) -> str | None:
        found = [
            option.header.raw_value.decode()
            for reply in self.sent
            for common in (reply.request_headers.response, reply.request_body.response)
            for option in common.header_mutation.set_headers
            if option.header.key == "content-length"
        ]
        return found[-1] if found else None


@pytest.fixture
async def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("mode", [FULL, BUFFERED])
async def test_reserved_fields_are_seen_by_neither_picker_nor_engine(scene: Scene, mode: BodySendMode) -> None:
    await scene.request(SENT, mode)
    assert (scene.asked[0].body, scene.asked[0].body_bytes) == (CLEAN, len(CLEAN))
    assert (scene.forwarded(mode), scene.length()) == (CLEAN, str(len(CLEAN)))
    assert scene.seen == [Checked.REMOVED]


@pytest.mark.parametrize("mode", [FULL, BUFFERED])
@pytest.mark.parametrize("outcome", [RuntimeError("broken"), None])
async def test_a_picker_that_fails_lets_none_through(
    scene: Scene, mode: BodySendMode, outcome: Exception | None
) -> None:
    scene.outcome = outcome
    await scene.request(SENT, mode, guard_s=0.05)
    assert (scene.forwarded(mode), scene.length()) == (CLEAN, str(len(CLEAN)))


async def test_the_pickers_own_body_goes_before(scene: Scene) -> None:
    scene.outcome = Pick((Endpoint("10.0.0.1:8000"),), body=b'{"kv_transfer_params":{"ours":1}}')
    await scene.request(SENT)
    assert scene.forwarded() == b'{"kv_transfer_params":{"ours":1}}'


@pytest.mark.parametrize("mode", [FULL, BUFFERED])
async def test_other_bodies_go_on_as_they_are(scene: Scene, mode: BodySendMode) -> None:
    await scene.request(CLEAN, mode)
    assert scene.forwarded(mode) == (CLEAN if mode == FULL else None)
    assert (scene.length(), scene.seen) == (None, [])


@pytest.mark.parametrize("size", [100_000, 300_000])
async def test_a_large_body_is_looked_through_as_well(scene: Scene, size: int) -> None:
    filler = b'{"prompt":"' + b"x" * size + b'"'
    await scene.request(filler + b',"bootstrap_host":"10.9.9.9"}')
    assert scene.forwarded() == filler + b"}"


async def test_a_body_of_usual_size_without_signs_of_them_waits_for_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ReservedFields()
    monkeypatch.setattr(seen, "_worker", None)
    for size in (1_000, 70_000, 250_000):
        body = CLEAN.replace(b"x", b"x" * size)
        assert await seen.take_out(body) is body


@pytest.mark.parametrize("mode", [FULL, BUFFERED])
async def test_what_cannot_be_looked_through_is_refused(scene: Scene, mode: BodySendMode) -> None:
    await scene.request(b'{"kv_transfer_params":', mode)
    assert scene.sent[-1].immediate_response.status.code == 400
    assert (scene.asked, scene.seen) == ([], [Checked.REFUSED])


async def test_what_there_is_no_time_to_look_through_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr(ReservedFields, "take_out", hang)
    await scene.request(SENT, guard_s=0.05)
    assert scene.sent[-1].immediate_response.status.code == 503
    assert scene.asked == []


@pytest.mark.parametrize(("mode", "limit"), [(NONE, 1 << 20), (STREAMED, 1 << 20), (FULL, 10), (BUFFERED, 10)])
async def test_a_body_that_nobody_reads_is_counted(scene: Scene, mode: BodySendMode, limit: int) -> None:
    await scene.request(SENT, mode, limit=limit)
    assert scene.seen == [Checked.UNREAD]


async def test_a_pool_may_let_its_clients_set_them(scene: Scene) -> None:
    await scene.request(SENT, allow=True)
    assert (scene.asked[0].body, scene.forwarded()) == (SENT, None)


@pytest.mark.parametrize("mode", [FULL, BUFFERED, STREAMED, NONE])
@pytest.mark.parametrize(
    "name", ["X-Data-Parallel-Rank", "x_data_parallel_rank", "X-Gateway-Destination-Endpoint", "x-prefiller-host-port"]
)
async def test_headers_that_choose_a_rank_or_a_host_are_removed_in_every_mode(
    scene: Scene, mode: BodySendMode, name: str
) -> None:
    conversation = Conversation(scene, scene, scene, StreamOptions())
    first = ProcessingRequest(request_headers=HttpHeaders(end_of_stream=mode == NONE))
    first.protocol_config.request_body_mode = mode
    first.request_headers.headers.headers.add(key=name, raw_value=b"1")
    conversation.message(first.SerializeToString())
    if mode != NONE:
        rest = ProcessingRequest(request_body=HttpBody(body=CLEAN, end_of_stream=True))
        conversation.message(rest.SerializeToString())
    await decided(conversation)
    conversation.closed()
    removed = [n for reply in scene.sent for n in reply.request_headers.response.header_mutation.remove_headers]
    assert removed == [name.lower()]
