"""Clients other than Envoy, on the ext_proc port: grpcio's two, and grpc-go. They play a gateway's recorded words."""

import asyncio
import base64
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health
from multipick_epp.extproc.pick import NoPick, Pick, PickRequest
from multipick_epp.extproc.tls import Certificate, self_signed
from multipick_epp.extproc.transports import ExtProcServer, Transport, ext_proc_server
from multipick_epp.proto.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from multipick_epp.proto.grpc_health_pb2 import HealthCheckResponse

from tests.protocol.go_programs import UnavailableError, program

if TYPE_CHECKING:
    from tests.protocol.conftest import CountingObserver, ScriptedPicker

PROCESS = f"/{EXT_PROC_SERVICE}/Process"
RECORDING = Path(__file__).parents[1] / "fixtures" / "ext_proc" / "gateway-chat.json"
MESSAGES = [base64.b64decode(each) for each in json.loads(RECORDING.read_text())]
BODY = b"".join(ProcessingRequest.FromString(message).request_body.body for message in MESSAGES)


@dataclass(slots=True)
class Served:
    server: ExtProcServer
    port: int
    picker: "ScriptedPicker"
    observer: "CountingObserver"
    certificate: Certificate | None


@pytest.fixture(params=["plaintext", "tls"])
async def served(
    request: pytest.FixtureRequest, transport: Transport, picker: "ScriptedPicker", observer: "CountingObserver"
) -> AsyncIterator[Served]:
    health = Health()
    health.ready(True)
    certificate = Certificate(self_signed()) if request.param == "tls" else None
    bounds = Bounds(max_read_bytes=32 << 20)
    server = ext_proc_server(transport, picker, health, observer, StreamOptions(bounds, pick_guard_s=60), certificate)
    port = await server.start("127.0.0.1", 0)
    yield Served(server, port, picker, observer, certificate)
    await server.drain(0)


def checked(replies: list[bytes]) -> None:
    """They are the whole conversation, each direction in its order: the pick, the body back; the response's parts."""
    said = [ProcessingResponse.FromString(reply) for reply in replies]
    kinds = [str(each.WhichOneof("response")) for each in said]
    assert [kind for kind in kinds if kind.startswith("request")] == ["request_headers", "request_body"]
    assert [kind for kind in kinds if kind.startswith("response")][:2] == ["response_headers", "response_body"]
    [pick] = [each.request_headers for each in said if each.HasField("request_headers")]
    assert pick.response.clear_route_cache
    assert b"".join(each.request_body.response.body_mutation.streamed_response.body for each in said) == BODY
    answers = [each.response_body for each in said if each.HasField("response_body")]
    assert answers[-1].response.body_mutation.streamed_response.end_of_stream


def channel(served: Served, kind: Any) -> Any:
    if served.certificate is None:
        return kind.insecure_channel(f"127.0.0.1:{served.port}")
    credentials = grpc.ssl_channel_credentials(served.certificate.identity.cert)
    options = (("grpc.ssl_target_name_override", "localhost"),)
    return kind.secure_channel(f"127.0.0.1:{served.port}", credentials, options)


async def converse(open_channel: Any, messages: list[bytes] = MESSAGES) -> list[bytes]:
    """The replies, until the last of them."""
    call = open_channel.stream_stream(PROCESS)()
    replies: list[bytes] = []
    for message in messages:
        await call.write(message)
    while not whole(replies):
        replies.append(await call.read())
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    return replies


def whole(replies: list[bytes]) -> bool:
    """Both bodies came back."""
    said = [ProcessingResponse.FromString(reply) for reply in replies]
    bodies = [each.request_body for each in said], [each.response_body for each in said]
    return all(any(each.response.body_mutation.streamed_response.end_of_stream for each in body) for body in bodies)


async def test_grpcio_asyncio(served: Served) -> None:
    async with channel(served, grpc.aio) as client:
        checked(await converse(client))
    assert not served.observer.failures


async def test_grpcio_threads(served: Served) -> None:
    def play() -> list[bytes]:
        with channel(served, grpc) as client:
            replies = client.stream_stream(PROCESS)(said())
            return list(replies)

    def said() -> Iterator[bytes]:
        yield from MESSAGES
        done.wait()

    done = threading.Event()
    playing = asyncio.create_task(asyncio.to_thread(play))
    await served.picker.changes.until(lambda: served.picker.named("release"))  # all was said and answered
    done.set()
    checked(await playing)
    assert not served.observer.failures


async def test_a_thousand_streams_at_once_on_one_connection(served: Served) -> None:
    gate = asyncio.Event()

    async def decide(request: PickRequest) -> Pick | NoPick:
        await gate.wait()
        return Pick((served.picker.endpoints[-1],))

    served.picker.decide = decide
    async with channel(served, grpc.aio) as client:
        playing = [asyncio.create_task(converse(client)) for _ in range(1000)]
        await served.picker.changes.until(lambda: len(served.picker.requests) == 1000, 60)
        assert served.observer.open == 1000
        gate.set()
        for replies in await asyncio.gather(*playing):
            checked(replies)
    await served.observer.changes.until(lambda: served.observer.open == 0)


async def test_a_body_of_many_megabytes_goes_through_windows_both_ways(served: Served) -> None:
    chunk = os.urandom(62_000)
    headers = ProcessingRequest.FromString(MESSAGES[0])
    bodies = [ProcessingRequest() for _ in range(200)]
    for body in bodies:
        body.request_body.body = chunk
    bodies[-1].request_body.end_of_stream = True
    async with channel(served, grpc.aio) as client:
        call = client.stream_stream(PROCESS)()
        for each in (headers, *bodies):
            await call.write(each.SerializeToString())
        got = ProcessingResponse.FromString(await call.read())
        assert got.HasField("request_headers")
        received = []
        while True:
            streamed = ProcessingResponse.FromString(await call.read()).request_body.response.body_mutation
            received.append(streamed.streamed_response.body)
            if streamed.streamed_response.end_of_stream:
                break
        assert b"".join(received) == chunk * 200
        call.cancel()
    assert served.picker.requests[0].body == chunk * 200


async def test_a_cancelled_call_is_over_here_too(served: Served) -> None:
    async with channel(served, grpc.aio) as client:
        call = client.stream_stream(PROCESS)()
        await call.write(MESSAGES[0])
        await served.observer.changes.until(lambda: served.observer.open == 1)
        call.cancel()
        await served.observer.changes.until(lambda: served.observer.open == 0)


@pytest.mark.parametrize("path", ["/no.such.Service/Method", f"/{EXT_PROC_SERVICE}/NoSuchMethod"])
async def test_an_unknown_method_is_unimplemented(path: str, served: Served) -> None:
    async with channel(served, grpc.aio) as client:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.unary_unary(path)(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_of_the_client_holds(served: Served) -> None:
    async with channel(served, grpc.aio) as client:
        await client.channel_ready()  # a busy machine takes longer for that than the deadline is away
        call = client.stream_stream(PROCESS)(timeout=0.5)
        await call.write(MESSAGES[0])
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await served.observer.changes.until(lambda: served.observer.open == 0)


async def test_draining_ends_open_streams_in_good_order(served: Served) -> None:
    async with channel(served, grpc.aio) as client:
        call = client.stream_stream(PROCESS)()
        await call.write(MESSAGES[0])
        await served.observer.changes.until(lambda: served.observer.open == 1)
        await served.server.drain(0.1)
        refused = ProcessingResponse.FromString(await call.read())  # its body would be lost
        assert refused.immediate_response.status.code == 503
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_grpc_go(served: Served) -> None:
    try:
        client = await asyncio.to_thread(program, "client")
    except UnavailableError as error:
        pytest.skip(str(error))
    replies_expected = await replies_of_reference(served)
    options = ["-target", f"127.0.0.1:{served.port}", "-streams", "50", "-expect", str(replies_expected)]
    options += ["-tls"] if served.certificate else []
    process = await asyncio.create_subprocess_exec(
        str(client), *options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said = json.dumps([base64.b64encode(message).decode() for message in MESSAGES]).encode()
    out, _ = await process.communicate(said)
    assert process.returncode == 0
    result = json.loads(out)
    health = HealthCheckResponse.FromString(base64.b64decode(result["health"]))
    assert health.status == HealthCheckResponse.SERVING
    assert result["unknown"] == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert result["codes"] == [0] * 50
    for replies in result["replies"]:
        checked([base64.b64decode(reply) for reply in replies])


async def replies_of_reference(served: Served) -> int:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(channel(served, grpc.aio))
        return len(await converse(client))
