"""Connections that are none of a gateway cost little, and not for long; a gateway's streams go on all the while."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import grpc
import pytest
from multipick_epp.extproc.connections import Connections
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health
from multipick_epp.extproc.interfaces import Failure
from multipick_epp.extproc.transports import Transport, ext_proc_server
from multipick_epp.proto.ext_proc_pb2 import HttpHeaders, ProcessingRequest, ProcessingResponse
from multipick_epp.types import Endpoint

from tests.protocol.conftest import CountingObserver, ScriptedPicker

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
ACKNOWLEDGED = b"\0\0\0\x04\x01\0\0\0\0"
BAD = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 40,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "half a preface": PREFACE[:10],
    "preface only": PREFACE,
    "half a frame": PREFACE + SETTINGS + b"\0\x10\0\x01\x04\0\0\0\x01abc",
    "no stream": PREFACE + SETTINGS + ACKNOWLEDGED,
}
Serve = Callable[[Connections, StreamOptions], Awaitable[tuple[int, CountingObserver]]]


@pytest.fixture
async def serve(transport: Transport) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(connections: Connections, options: StreamOptions) -> tuple[int, CountingObserver]:
            observer, picker = CountingObserver(), ScriptedPicker([Endpoint("10.0.0.1:8000")])
            server = ext_proc_server(transport, picker, Health(), observer, options, connections=connections)
            port = await server.start("127.0.0.1", 0)
            stack.push_async_callback(server.drain, 0)
            return port, observer

        yield start


async def closed_by_the_server(port: int, words: bytes) -> bool:
    with suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        while await reader.read(4096):
            pass
        writer.close()
    return True


async def answered(call: grpc.aio.StreamStreamCall) -> bool:
    await call.write(ProcessingRequest(response_headers=HttpHeaders()).SerializeToString())
    reply = ProcessingResponse.FromString(await call.read())
    return reply.HasField("response_headers")


async def test_two_thousand_bad_connections_are_closed_while_a_stream_goes_on(serve: Serve) -> None:
    port, observer = await serve(Connections(handshake_s=1.0, idle_s=1.0), StreamOptions())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(60):
        call = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        assert await answered(call)
        kinds = itertools.islice(itertools.cycle(BAD.values()), 2_000)
        bad = [asyncio.create_task(closed_by_the_server(port, words)) for words in kinds]
        while not all(task.done() for task in bad):
            assert await answered(call)
            await asyncio.wait(bad, timeout=0.1)
        assert all(task.result() for task in bad)
        assert await answered(call)  # quiet for longer than any bound above, and still there
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    assert observer.failures == []


async def test_a_quiet_stream_outlives_every_bound(serve: Serve) -> None:
    bounds = Connections(handshake_s=0.2, idle_s=0.2, ping_s=0.2, pong_s=5)
    port, _ = await serve(bounds, StreamOptions(first_message_s=0.2))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(60):
        call = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        assert await answered(call)
        for _ in range(5):  # each takes as long as the bounds: meanwhile nothing is said on the stream
            assert await closed_by_the_server(port, b"")
        assert await answered(call)


async def test_connections_beyond_the_most_are_closed_at_once(serve: Serve) -> None:
    port, _ = await serve(Connections(most=3, handshake_s=600, idle_s=600), StreamOptions())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(60):
        call = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        assert await answered(call)
        tasks = [asyncio.create_task(closed_by_the_server(port, b"")) for _ in range(50)]
        while sum(task.done() for task in tasks) < 48:
            await asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        assert await answered(call)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_stream_that_is_opened_and_never_used_is_ended(serve: Serve) -> None:
    port, observer = await serve(Connections(), StreamOptions(first_message_s=0.1))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(60):
        call = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        await call.wait_for_connection()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert observer.failures == [Failure.SILENT]
    await observer.changes.until(lambda: observer.open == 0)
