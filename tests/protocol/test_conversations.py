"""What Envoy says on a stream, beside the recordings of it in tests/fixtures/ext_proc, which the unit tests play.

MULTIPICK_RECORD=1 records anew. Timing decides how a streamed body is cut, so cuts are not compared.
"""

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gateway_messages import read
from multipick_epp.extproc.driver import Conversation
from multipick_epp.extproc.messages import (
    Modes,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)

if TYPE_CHECKING:
    from tests.protocol.conftest import Gateway, Received, StartGateway

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "ext_proc"
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Why? " * 500}]}).encode()
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = b"".join(b"9\r\ndata: %d\n\n\r\n" % n for n in range(5))


async def get(gateway: "Gateway") -> None:
    async with gateway.http.get("/v1/models") as response:
        await response.read()


async def chat(gateway: "Gateway") -> None:
    async with gateway.http.post("/v1/chat/completions", data=CHAT) as response:
        await response.read()


async def trailers(gateway: "Gateway") -> None:
    host, _, port = gateway.envoy.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: m\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"2\r\n{}\r\n0\r\nx-before: end\r\n\r\n")
    await reader.read()
    writer.close()


def streamed_both_ways(mode: dict[str, str]) -> None:
    mode |= {"request_body_mode": "STREAMED", "response_body_mode": "STREAMED"}


def unchanged(mode: dict[str, str]) -> None:
    """The style's own modes."""


Request = Callable[["Gateway"], Awaitable[None]]
CONVERSATIONS: dict[str, tuple[Any, Callable[[dict[str, str]], None], Request]] = {
    "standalone-get": ("standalone", unchanged, get),
    "standalone-chat": ("standalone", unchanged, chat),
    "gateway-get": ("gateway", unchanged, get),
    "gateway-chat": ("gateway", unchanged, chat),
    "gateway-trailers": ("gateway", unchanged, trailers),
    "streamed-chat": ("gateway", streamed_both_ways, chat),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_recordings_are_what_envoy_says(
    name: str, start_gateway: "StartGateway", monkeypatch: pytest.MonkeyPatch
) -> None:
    style, modes, request = CONVERSATIONS[name]
    heard: list[bytes] = []

    message = Conversation.message

    def tapped(conversation: Conversation, data: bytes) -> None:
        heard.append(data)
        message(conversation, data)

    def change(config: dict[str, Any]) -> None:
        connections = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        connections["http_protocol_options"] = {"enable_trailers": True}
        [ext_proc] = [each for each in connections["http_filters"] if each["name"] == "envoy.filters.http.ext_proc"]
        modes(ext_proc["typed_config"]["processing_mode"])

    async def answer(received: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + EVENTS + b"0\r\n\r\n")

    monkeypatch.setattr(Conversation, "message", tapped)
    gateway = await start_gateway(style, change=change)
    gateway.answer_all(answer)
    await request(gateway)
    await gateway.settled()
    file = RECORDINGS / f"{name}.json"
    if os.environ.get("MULTIPICK_RECORD"):
        file.write_text(json.dumps([base64.b64encode(message).decode() for message in heard], indent=1) + "\n")
    recorded = [base64.b64decode(message) for message in json.loads(file.read_text())]
    assert gist(heard) == gist(recorded)


@dataclass(slots=True)
class Gist:
    """What was said, without what differs from run to run."""

    modes: Modes | None = None
    headers: list[object] = field(default_factory=list)
    request_body: bytes = b""
    response_body: bytes = b""
    ends: list[str] = field(default_factory=list)  # the kinds of messages that ended a direction, in order
    trailers: list[str] = field(default_factory=list)


def gist(conversation: list[bytes]) -> Gist:
    said = Gist()
    for message in map(read, conversation):
        said.modes = said.modes or message.modes
        kind = type(message.part).__name__
        match message.part:
            case RequestHeaders(headers, _, subset):
                said.headers.append((sorted(headers), headers[":method"], headers[":path"], subset))
            case ResponseHeaders(_, served):
                said.headers.append(served is not None)
            case RequestBody(data, _):
                said.request_body += data
            case ResponseBody(data, _):
                said.response_body += data
            case _:
                said.trailers.append(kind)
        if getattr(message.part, "end", False):
            said.ends.append(kind)
    return said
