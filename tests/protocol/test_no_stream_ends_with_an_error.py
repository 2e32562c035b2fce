"""After a stream opened no gRPC error may come: a gateway makes a 500 of it, also where it is told to fail open."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health
from multipick_epp.extproc.pick import NoPick, Pick, PickRequest
from multipick_epp.extproc.transports import Transport, ext_proc_server
from multipick_epp.proto.ext_proc_pb2 import HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest

if TYPE_CHECKING:
    from tests.protocol.conftest import CountingObserver, ScriptedPicker

HEADERS = ProcessingRequest(request_headers=HttpHeaders())
ALONE = ProcessingRequest(request_headers=HttpHeaders(end_of_stream=True))
BODY = ProcessingRequest(request_body=HttpBody(body=b"{}", end_of_stream=True))
LARGE = ProcessingRequest(request_body=HttpBody(body=b"x" * 300_000, end_of_stream=True))
TRAILERS = ProcessingRequest(request_trailers=HttpTrailers())
RESPONSE = ProcessingRequest(response_headers=HttpHeaders(end_of_stream=True))
MANY = ProcessingRequest(request_headers=HttpHeaders(end_of_stream=True))
for _ in range(30_000):
    MANY.request_headers.headers.headers.add(key="a", raw_value=b"b")

STREAMS: dict[str, Sequence[ProcessingRequest | bytes]] = {
    "nothing": (),
    "no message": (b"\xff\xff\xff\xff",),
    "an empty message": (b"",),
    "a message of no kind": (b"\x50\x01",),  # observability_mode alone
    "headers twice": (HEADERS, HEADERS, BODY),
    "a body without headers": (BODY,),
    "trailers without headers": (TRAILERS,),
    "a response without a request": (RESPONSE,),
    "too many headers": (MANY,),
    "a body that is too large": (HEADERS, LARGE),
    "garbage behind a request": (ALONE, b"\x0a\xff"),
    "more behind the end": (HEADERS, BODY, BODY, TRAILERS, RESPONSE, RESPONSE),
}


@pytest.fixture
async def channel(
    transport: Transport, picker: "ScriptedPicker", observer: "CountingObserver"
) -> AsyncIterator[grpc.aio.Channel]:
    settings = StreamOptions(Bounds(max_read_bytes=100_000, max_body_bytes=200_000))
    server = ext_proc_server(transport, picker, Health(), observer, settings)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.drain(0)


async def status(channel: grpc.aio.Channel, messages: Sequence[ProcessingRequest | bytes]) -> Any:
    call = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    for message in messages:
        if call.done():  # it was ended already
            break
        await call.write(message if isinstance(message, bytes) else message.SerializeToString())
    if not call.done():
        await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass
    return await call.code()


async def raising(request: PickRequest) -> Pick | NoPick:
    raise RuntimeError("no idea")


async def nonsense(request: PickRequest) -> Any:
    return "an endpoint"


async def unspeakable(request: PickRequest) -> Pick | NoPick:
    return Pick((), None, {"x": "\ud800"})


@pytest.mark.parametrize("said", STREAMS.values(), ids=STREAMS)
@pytest.mark.requirement("ext_proc: No stream ends with a gRPC error.")
async def test_whatever_a_gateway_says(said: Sequence[Any], channel: grpc.aio.Channel) -> None:
    assert await status(channel, said) is grpc.StatusCode.OK


@pytest.mark.parametrize("decide", [raising, nonsense, unspeakable])
@pytest.mark.requirement("ext_proc: No stream ends with a gRPC error.")
async def test_whatever_the_picker_does(decide: Any, channel: grpc.aio.Channel, picker: "ScriptedPicker") -> None:
    picker.decide = decide
    assert await status(channel, (HEADERS, BODY)) is grpc.StatusCode.OK
