"""The client leaves, the picker fails, hangs or dies: what must not happen to the request, and to the reservation."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from multipick_epp.extproc import server
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import EXT_PROC_SERVICE
from multipick_epp.extproc.http2 import server as http2_server
from multipick_epp.extproc.interfaces import Failure
from multipick_epp.extproc.pick import NoPick, Pick, PickRequest
from multipick_epp.types import Endpoint
from multipick_sim.local.bootstrap import Bootstrap, render
from multipick_sim.local.envoy import envoy
from multipick_sim.local.processes import running

if TYPE_CHECKING:
    from multipick_epp.extproc.transports import Transport

    from tests.protocol.conftest import Gateway, Listening, Received, StartGateway

both_styles = pytest.mark.parametrize("style", ["standalone", "gateway"])
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Streaming:
    """An endpoint in the middle of an SSE answer: `more` lets it finish."""

    def __init__(self) -> None:
        self.more = asyncio.Event()

    async def __call__(self, request: "Received", writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + b"9\r\ndata: 1\n\n\r\n")
        await writer.drain()
        await self.more.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")


@both_styles
@pytest.mark.requirement("ext_proc: A reset by endpoint or client ends the request and nothing else.")
async def test_a_client_that_leaves_amid_the_answer_frees_its_reservation(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    gateway.answer_all(Streaming())
    response = await gateway.http.post("/v1/completions", data=b"{}")
    await response.content.readany()
    assert not gateway.picker.named("release")
    response.close()
    await gateway.settled()
    assert gateway.picker.named("release") == [("r1",)]
    assert not gateway.observer.failures


@both_styles
@pytest.mark.requirement("ext_proc: A reset by endpoint or client ends the request and nothing else.")
async def test_a_client_that_leaves_during_the_pick_ends_it(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style, settings=StreamOptions(pick_guard_s=60))

    async def think(request: PickRequest) -> Pick | NoPick:
        await asyncio.Event().wait()
        raise AssertionError

    gateway.picker.decide = think
    asking = asyncio.ensure_future(gateway.http.post("/v1/completions", data=b"{}"))
    await gateway.picker.changes.until(lambda: gateway.picker.requests)
    asking.cancel()
    await gateway.picker.changes.until(lambda: gateway.picker.abandoned == 1)
    await gateway.settled()
    assert not gateway.picker.calls
    assert not gateway.observer.failures


@both_styles
@pytest.mark.requirement("ext_proc: A reset by endpoint or client ends the request and nothing else.")
async def test_a_client_that_leaves_amid_its_body_is_never_picked_for(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    host, _, port = gateway.envoy.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: m\r\ncontent-length: 100000\r\n\r\n" + b"x" * 1000)
    await gateway.observer.changes.until(lambda: gateway.observer.open == 1)
    writer.close()
    await gateway.settled()
    assert not gateway.picker.requests
    assert not gateway.received


@both_styles
@pytest.mark.requirement("ext_proc: A failed decision costs the pick, and not the request.")
async def test_a_picker_that_raises_costs_the_pick_and_not_the_request(
    style: Any, start_gateway: "StartGateway", caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway(style)

    async def fail(request: PickRequest) -> Pick | NoPick:
        raise RuntimeError("no idea")

    gateway.picker.decide = fail
    body = b"x" * 200_000
    for _ in range(2):
        async with gateway.http.post("/v1/completions", data=body) as response:
            assert (response.status, await response.read()) == (200, b'{"ok":true}')
    await gateway.settled()
    assert [len(upstream.received) for upstream in gateway.upstreams] == [1, 1]  # Envoy's own choice: in turn
    assert [received.body for received in gateway.received] == [body, body]
    assert gateway.observer.failures == [Failure.PICK_RAISED] * 2
    assert "no idea" in caplog.text


@both_styles
@pytest.mark.requirement("ext_proc: A failed decision costs the pick, and not the request.")
async def test_a_picker_that_hangs_costs_the_pick_and_not_the_request(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style, settings=StreamOptions(pick_guard_s=0.05))

    async def hang(request: PickRequest) -> Pick | NoPick:
        await asyncio.Event().wait()
        raise AssertionError

    gateway.picker.decide = hang
    async with gateway.http.post("/v1/completions", data=b"y" * 1000) as response:
        assert response.status == 200
    await gateway.settled()
    assert [received.body for received in gateway.received] == [b"y" * 1000]
    assert gateway.observer.failures == [Failure.PICK_TIMEOUT]
    assert gateway.picker.abandoned == 1


@both_styles
async def test_a_pick_that_comes_too_late_is_given_back(style: Any, start_gateway: "StartGateway") -> None:
    gateway = await start_gateway(style, settings=StreamOptions(pick_guard_s=0.05))

    async def stubborn(request: PickRequest) -> Pick | NoPick:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Pick((gateway.picker.endpoints[0],), gateway.picker.reservation())
        raise AssertionError

    gateway.picker.decide = stubborn
    async with gateway.http.post("/v1/completions", data=b"{}") as response:
        assert response.status == 200
    await gateway.picker.changes.until(lambda: gateway.picker.named("release"))
    await gateway.settled()
    assert gateway.picker.calls == [("release", "r1")]


@both_styles
async def test_an_answer_that_cannot_be_sent_is_refused_rather_than_cut(
    style: Any, start_gateway: "StartGateway"
) -> None:
    """A defect of ours in the middle of a reply: the body must not arrive empty at the endpoint."""
    gateway = await start_gateway(style)

    async def decide(request: PickRequest) -> Pick:
        return Pick((gateway.picker.endpoints[0],), gateway.picker.reservation(), {"x-broken": "\ud800"})

    gateway.picker.decide = decide
    async with gateway.http.post("/v1/completions", data=b"{}") as response:
        status = response.status
    await gateway.settled()
    assert status == (200 if style == "standalone" else 503)
    assert [received.body for received in gateway.received] == ([b"{}"] if style == "standalone" else [])
    assert gateway.observer.failures == [Failure.INTERNAL]
    assert gateway.picker.named("release") == [("r1",)]


@both_styles
@pytest.mark.requirement("ext_proc: A picker that leaves ends its streams with OK, and answers finish without it.")
async def test_draining_answers_on_and_then_lets_answers_finish_without_us(
    style: Any, start_gateway: "StartGateway", monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = asyncio.Event()

    async def quiet(busy: Callable[[], object], within_s: float) -> None:
        await deadline.wait()
        assert busy()

    gateway = await start_gateway(style)
    streaming = Streaming()
    gateway.answer_all(streaming)
    first = await gateway.http.post("/v1/completions", data=b"{}")
    for module in (server, http2_server):
        monkeypatch.setattr(module, "quiet", quiet)
    draining = asyncio.ensure_future(gateway.server.drain(0.5))
    second = await gateway.http.post("/v1/completions", data=b"{}")  # not refused while there is time
    assert [await response.content.readexactly(9) for response in (first, second)] == [b"data: 1\n\n"] * 2
    deadline.set()
    await draining
    monkeypatch.undo()
    await gateway.settled()
    assert sorted(gateway.picker.named("release")) == [("r1",), ("r2",)]
    streaming.more.set()
    assert [await response.read() for response in (first, second)] == [b"data: 2\n\n"] * 2


async def test_draining_ends_as_soon_as_nothing_is_open(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway("standalone")
    streaming = Streaming()
    gateway.answer_all(streaming)
    response = await gateway.http.post("/v1/completions", data=b"{}")
    draining = asyncio.ensure_future(gateway.server.drain(3600))
    streaming.more.set()
    assert await response.read() == b"data: 1\n\ndata: 2\n\n"
    await asyncio.wait_for(draining, 60)


@both_styles
async def test_a_request_that_draining_cuts_is_refused_with_retry_after(
    style: Any, start_gateway: "StartGateway"
) -> None:
    gateway = await start_gateway(style)
    more = asyncio.Event()

    async def slow_body() -> Any:
        yield b"{"
        await more.wait()
        yield b"}"

    asking = asyncio.ensure_future(gateway.http.post("/v1/chat/completions", data=slow_body()))
    await gateway.observer.changes.until(lambda: gateway.observer.open == 1)
    if style == "gateway":
        await first_chunk_arrived(gateway)
    await gateway.server.drain(0)
    more.set()
    response = await asking
    if style == "gateway":
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert (await response.json())["error"]["type"] == "service_unavailable_error"
        assert not gateway.received
    else:
        assert response.status == 200  # fail-open: the body is Envoy's to forward
        assert [received.body for received in gateway.received] == [b"{}"]


@both_styles
async def test_a_request_that_is_being_decided_as_draining_ends_is_decided(
    style: Any, start_gateway: "StartGateway"
) -> None:
    """It may have begun in the very moment in which nothing else was open."""
    gateway = await start_gateway(style)
    asked, decided = asyncio.Event(), asyncio.Event()
    decide = gateway.picker.decide

    async def later(request: PickRequest) -> Pick | NoPick:
        asked.set()
        await decided.wait()
        return await decide(request)

    gateway.picker.decide = later
    asking = asyncio.ensure_future(gateway.http.post("/v1/completions", data=b"{}"))
    await asked.wait()
    draining = asyncio.ensure_future(gateway.server.drain(0))
    await asyncio.sleep(0.1)
    decided.set()
    response = await asking
    assert response.status == 200
    assert [received.body for received in gateway.received] == [b"{}"]
    await draining
    await gateway.settled()
    assert gateway.picker.named("release") == [("r1",)]
    assert gateway.observer.failures == []


async def first_chunk_arrived(gateway: "Gateway") -> None:
    # Envoy says nothing of it: its statistics count the messages it sent on streams.
    async with asyncio.timeout(60), aiohttp.ClientSession() as admin:
        sent = 0
        while sent < 2:
            async with admin.get(
                f"{gateway.envoy.admin_url}/stats?filter=ext_proc.stream_msgs_sent&format=json"
            ) as stats:
                sent = sum(each["value"] for each in (await stats.json())["stats"])


@pytest.mark.requirement("ext_proc: Behind our own Envoy a dead picker costs nothing.")
async def test_a_picker_killed_amid_answers_is_invisible_behind_our_own_envoy(
    listening: "Listening", tmp_path: Path, transport: "Transport"
) -> None:
    upstream = await listening()
    streaming = Streaming()
    upstream.answer = streaming
    child = [sys.executable, "-c", PICKER, upstream.endpoint, transport]
    async with running(child, log=tmp_path / "picker.log") as process:
        port = await logged_port(tmp_path / "picker.log")
        config = render(Bootstrap([upstream.endpoint], [port]))
        async with envoy(config, log=tmp_path / "envoy.log") as front, aiohttp.ClientSession(front.url) as http:
            before = await http.post("/v1/completions", data=b"{}")
            assert upstream.received[0].headers["x-picked-by"] == "child"
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            after = await http.post("/v1/completions", data=b"{}")
            streaming.more.set()
            for response in (before, after):
                assert (response.status, await response.read()) == (200, b"data: 1\n\ndata: 2\n\n")
            assert "x-picked-by" not in upstream.received[1].headers


@both_styles
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
@pytest.mark.requirement("ext_proc: What a dead picker was asked is asked of another.")
async def test_what_a_dead_picker_is_asked_is_asked_of_another(
    style: Any, how: signal.Signals, listening: "Listening", transport: Any, tmp_path: Path
) -> None:
    """Of three, two fail: more requests at once than Envoy repeats by default. What they are asked, nobody answered."""
    upstream = await listening()
    child = [sys.executable, "-c", PICKER, upstream.endpoint, transport]
    async with AsyncExitStack() as started:
        logs = [tmp_path / f"picker-{number}.log" for number in range(3)]
        pickers = [await started.enter_async_context(running(child, log=log)) for log in logs]
        ports = [await logged_port(log) for log in logs]
        config = render(Bootstrap([upstream.endpoint], ports, style))
        front = await started.enter_async_context(envoy(config, log=tmp_path / "envoy.log"))
        http = await started.enter_async_context(aiohttp.ClientSession(front.url))

        async def picked() -> bool:
            async with http.post("/v1/completions", data=b"{}") as response:
                return response.status == 200

        await seen_healthy(front.admin_url, 3)
        assert await picked()
        upstream.received.clear()
        for picker in pickers[:2]:
            os.kill(picker.pid, how)
        assert await asyncio.gather(*(picked() for _ in range(30))) == [True] * 30
        assert {request.headers.get("x-picked-by") for request in upstream.received} == {"child"}
        for picker in pickers[:2]:
            with suppress(ProcessLookupError):
                os.kill(picker.pid, signal.SIGKILL)  # one that hangs would hold up the test's end


async def seen_healthy(admin_url: str, pickers: int) -> None:
    # A request that is answered says nothing of it: our own Envoy lets through what no picker saw.
    async with asyncio.timeout(60), aiohttp.ClientSession() as admin:
        healthy = 0
        while healthy < pickers:
            async with admin.get(f"{admin_url}/stats?filter=cluster.pickers.membership_healthy&format=json") as stats:
                healthy = sum(each["value"] for each in (await stats.json())["stats"])


PICKER = """
import sys, asyncio, uvloop
from multipick_epp.extproc.driver import StreamOptions
from multipick_epp.extproc.health import Health
from multipick_epp.extproc.transports import ext_proc_server
from multipick_epp.extproc.pick import Pick

class Always:
    async def pick(self, request): return Pick((sys.argv[1],), "r", {"x-picked-by": "child"})
    def __getattr__(self, name): return lambda *args: None

async def main():
    health = Health()
    health.ready(True)
    server = ext_proc_server(sys.argv[2], Always(), health, Always(), StreamOptions())
    print(await server.start("127.0.0.1", 0), flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


async def logged_port(log: Path) -> int:
    async with asyncio.timeout(60):
        while not (lines := lines_of(log)):
            await asyncio.sleep(0.02)
    return int(lines[0])


def lines_of(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def test_garbage_on_the_port_ends_its_stream_only(start_gateway: "StartGateway") -> None:
    gateway = await start_gateway("standalone")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.ext_proc_port}") as channel:
        call = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        await call.write(b"\xff\xff\xff\xff not a message")
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert gateway.observer.failures == [Failure.UNREADABLE]
    async with gateway.http.get("/v1/models") as response:
        assert response.status == 200
    assert gateway.picker.endpoints[-1] == Endpoint(gateway.received[0].headers["x-gateway-destination-endpoint"])
