"""The chart's Envoy: what it does with addresses that nobody listens on, and with connections that clients keep."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from multipick_sim.local.envoy import envoy

helm = pytest.importorskip("helm_python", reason="Helm's library is not to be had on this platform")

CHART = Path(__file__).parents[2] / "charts/multipick"
DEAD = 6  # more than a request is tried


@pytest.fixture
def closed() -> Iterator[list[int]]:
    """Ports that nobody listens on, and nobody else can take."""
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(DEAD + 1)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in bound]


def bootstrap(ports: list[int], picker: int, **settings: Any) -> Any:
    """The chart's, with a pool and a picker of this machine, on free ports."""
    pool = {"name": "demo", "namespace": "ml", "ports": ports}
    values = {"gateway": {"enabled": True, "pool": pool} | settings}
    with helm.Chart.load(str(CHART)) as chart:
        files = chart.render(values, name="multipick", namespace="system")
    (gateway,) = [text for name, text in files.items() if name.endswith("gateway.yaml")]
    (text,) = [one["data"]["envoy.yaml"] for one in yaml.safe_load_all(gateway) if one and one["kind"] == "ConfigMap"]
    for service in ("demo-engine.ml.svc", "demo-epp-pods.ml.svc"):
        assert service in text
        text = text.replace(service, "127.0.0.1")
    config = yaml.safe_load(text.replace("port_value: 9002", f"port_value: {picker}"))
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    listeners = config["static_resources"]["listeners"]
    listeners[0]["name"] = "pooled"
    for one in listeners:
        one["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    return config


@asynccontextmanager
async def engine(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """The port of one that answers so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_requests_without_a_pick_go_where_somebody_listens(closed: list[int], tmp_path: Path) -> None:
    """While a pool's port changes, each pod is a host on both ports, and listens on one of them."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="served")

    *dead, picker = closed
    async with engine(answer) as port:
        config = bootstrap([*dead, port], picker)
        async with envoy(config, log=tmp_path / "envoy.log") as front, aiohttp.ClientSession() as client:
            statuses = set()
            for _ in range(3 * DEAD):  # every address has its turn
                async with client.post(f"{front.url}/v1/completions", json={}) as response:
                    statuses.add(response.status)
        assert statuses == {200}


async def test_a_kept_connection_is_ended_after_an_answer_and_never_amid_one(closed: list[int], tmp_path: Path) -> None:
    """Else its client would be cut when the Envoy that it stays with has left."""
    old = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response()
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"begun, ")
        await old.wait()
        await stream.write(b"ended")
        return stream

    async with engine(answer) as port:
        config = bootstrap([port], closed[0], drainSeconds=2)
        async with envoy(config, log=tmp_path / "envoy.log") as front, aiohttp.ClientSession() as client:

            async def reached() -> bool:
                filter_ = "downstream_cx_max_duration_reached"
                async with client.get(f"{front.admin_url}/stats?filter=llm.{filter_}") as stats:
                    return not (await stats.text()).strip().endswith(": 0")

            async with client.post(f"{front.url}/v1/completions", json={}) as response:
                assert await response.content.readexactly(7) == b"begun, "
                while not await reached():
                    await asyncio.sleep(0.05)
                old.set()
                assert await response.read() == b"ended"
            async with client.post(f"{front.url}/v1/completions", json={}) as response:
                assert (await response.read(), response.headers.get("connection")) == (b"begun, ended", "close")
