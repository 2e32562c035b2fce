"""Pickers are asked at their own addresses; one that is ill answers for itself alone."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import msgspec
import pytest
from aiohttp import web
from multipick_operator import probe as probe_module
from multipick_operator.children.configuration import ADMIN_PORT
from multipick_operator.probe import PodProbe
from multipick_operator.status.pickers import Endpoints, Mismatch, PickerReport

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[str]]
WELL = PickerReport(endpoints=Endpoints(1, 1, {"exact": 1}))


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a picker of its own address, since all have one port; returns the address."""
    runners: list[web.AppRunner] = []

    async def start(answer: Answer) -> str:
        app = web.Application()
        app.router.add_get("/status", answer)
        runners.append(web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1))
        await runners[-1].setup()
        address = "127." + ".".join(str(random.randrange(2, 250)) for _ in range(3))
        await web.TCPSite(runners[-1], address, ADMIN_PORT).start()
        return address

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def probe(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PodProbe]:
    monkeypatch.setattr(probe_module, "TIMEOUT", aiohttp.ClientTimeout(total=60))  # whatever else this machine does
    probe = PodProbe()
    yield probe
    await probe.close()


def saying(report: PickerReport, status: int = 200) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=msgspec.json.encode(report))

    return answer


async def test_every_picker_is_asked_and_who_is_silent_is_left_out(serve: Serve, probe: PodProbe) -> None:
    away = PickerReport(state="loads: away")
    addresses = [await serve(saying(WELL)), await serve(saying(WELL, 404)), await serve(saying(away)), "127.0.0.254"]
    assert await probe.pickers(addresses) == [WELL, away]
    assert await probe.pickers([]) == []


async def test_a_report_that_comes_in_pieces_is_read_whole(serve: Serve, probe: PodProbe) -> None:
    report = PickerReport(mismatches=[Mismatch("model", f"10.0.0.1:{port}", "x" * 500) for port in range(1000)])

    async def pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        body = msgspec.json.encode(report)
        for start in range(0, len(body), 50_000):
            await response.write(body[start : start + 50_000])
            await asyncio.sleep(0)
        return response

    assert await probe.pickers([await serve(pieces)]) == [report]


async def test_an_endless_report_is_cut_off(serve: Serve, probe: PodProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "MAX_ANSWER_BYTES", 100_000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 10_000)

    assert await probe.pickers([await serve(endless), await serve(saying(WELL))]) == [WELL]


async def test_a_picker_that_hangs_is_not_waited_for(
    serve: Serve, probe: PodProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    hold = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await hold.wait()
        return web.Response()

    assert await probe.pickers([await serve(hang)]) == []


async def test_a_picker_cannot_send_the_operator_elsewhere(serve: Serve, probe: PodProbe) -> None:
    target = await serve(saying(WELL))

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": f"http://{target}:{ADMIN_PORT}/status"})

    assert await probe.pickers([await serve(elsewhere)]) == []
