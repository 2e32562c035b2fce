"""NGINX Gateway Fabric's sequence (cmd/gateway/endpoint_picker.go): headers, the whole body, half-close, then it reads.

It names no modes, has values in `value`, reads the destination out of the headers' answer alone, and shows no response.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import EXT_PROC_SERVICE, Health
from multipick_epp.extproc.pick import NoPick, Pick, PickRequest
from multipick_epp.extproc.transports import Transport, ext_proc_server
from multipick_epp.proto.ext_proc_pb2 import HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse

if TYPE_CHECKING:
    from tests.protocol.conftest import CountingObserver, ScriptedPicker

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
PSEUDO = {":method": "POST", ":path": "/v1/chat/completions"}


@dataclass(slots=True)
class Port:
    channel: grpc.aio.Channel
    picker: "ScriptedPicker"
    observer: "CountingObserver"

    async def ask(self, messages: Sequence[ProcessingRequest]) -> list[ProcessingResponse]:
        """Say all of it, half-close, and only then listen, to the stream's end."""
        call = self.channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        for message in messages:
            await call.write(message.SerializeToString())
        await call.done_writing()
        replies = []
        while (reply := await call.read()) is not grpc.aio.EOF:
            replies.append(ProcessingResponse.FromString(reply))
        assert await call.code() is grpc.StatusCode.OK
        return replies


@pytest.fixture
async def port(transport: Transport, picker: "ScriptedPicker", observer: "CountingObserver") -> AsyncIterator[Port]:
    settings = StreamOptions(Bounds(max_read_bytes=1 << 20), pick_guard_s=60)
    server = ext_proc_server(transport, picker, Health(), observer, settings)
    number = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{number}") as channel:
        yield Port(channel, picker, observer)
    await server.drain(0)


def headers(named: dict[str, str], end: bool = False) -> ProcessingRequest:
    message = ProcessingRequest(request_headers=HttpHeaders(end_of_stream=end))
    for name, value in {**named, "content-type": "application/json"}.items():
        message.request_headers.headers.headers.add(key=name, value=value)
    return message


def body(data: bytes) -> ProcessingRequest:
    return ProcessingRequest(request_body=HttpBody(body=data, end_of_stream=True))


def destination(replies: Sequence[ProcessingResponse]) -> str:
    [answer] = [reply.request_headers for reply in replies if reply.HasField("request_headers")]
    [found] = [
        each.header.raw_value.decode()
        for each in answer.response.header_mutation.set_headers
        if each.header.key == "x-gateway-destination-endpoint"
    ]
    return found


@pytest.mark.parametrize("named", [PSEUDO, {}], ids=["pseudo-headers", "none"])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.requirement("gateways: A half-close is no abort: what was asked is answered, then the stream ends.")
async def test_its_request_is_picked(named: dict[str, str], slow: bool, port: Port) -> None:
    async def decide(request: PickRequest) -> Pick | NoPick:
        await asyncio.sleep(0.05 if slow else 0)  # the half-close comes behind the pick, or before it
        return await port.picker.choose_last(request)

    port.picker.decide = decide
    for _ in range(5):
        assert destination(await port.ask([headers(named), body(CHAT)])) == port.picker.endpoints[-1]
    assert [request.body for request in port.picker.requests] == [CHAT] * 5
    await port.observer.changes.until(lambda: port.observer.open == 0)
    assert len(port.picker.named("release")) == 5
    assert port.picker.abandoned == 0
    assert (port.observer.failures, port.observer.missed) == ([], [])


@pytest.mark.requirement("gateways: A half-close is no abort: what was asked is answered, then the stream ends.")
async def test_a_request_without_a_body_is_picked(port: Port) -> None:
    assert destination(await port.ask([headers({}, end=True)])) == port.picker.endpoints[-1]
    assert destination(await port.ask([headers({}), body(b"")])) == port.picker.endpoints[-1]
    assert [request.body for request in port.picker.requests] == [None, None]


async def test_20_mb_in_one_message_are_picked_unread(port: Port) -> None:
    replies = await port.ask([headers({}), body(b"x" * 20_000_000)])
    assert destination(replies) == port.picker.endpoints[-1]
    assert port.picker.requests[0].body_bytes == 20_000_000


async def test_a_refusal_is_an_answer(port: Port) -> None:
    async def refuse(request: PickRequest) -> NoPick:
        return NoPick(503, b"{}", "no-ready-endpoint")

    port.picker.decide = refuse
    [reply] = await port.ask([headers({}), body(CHAT)])
    assert reply.immediate_response.status.code == 503
