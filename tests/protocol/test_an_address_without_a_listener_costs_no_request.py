"""The chart's Envoy while a pool's port changes: each pod is a host on both ports, and listens on one of them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
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


def bootstrap(ports: list[int], picker: int) -> Any:
    """The chart's, with a pool and a picker of this machine, on free ports."""
    values = {"gateway": {"enabled": True, "pool": {"name": "demo", "namespace": "ml", "ports": ports}}}
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


async def test_requests_without_a_pick_go_where_somebody_listens(closed: list[int], tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="served")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    engine = web.AppRunner(app, access_log=None)
    await engine.setup()
    try:
        await web.TCPSite(engine, "127.0.0.1", 0).start()
        *dead, picker = closed
        config = bootstrap([*dead, engine.addresses[0][1]], picker)
        async with envoy(config, log=tmp_path / "envoy.log") as front, aiohttp.ClientSession() as client:
            statuses = set()
            for _ in range(3 * DEAD):  # every address has its turn
                async with client.post(f"{front.url}/v1/completions", json={}) as response:
                    statuses.add(response.status)
        assert statuses == {200}
    finally:
        await engine.cleanup()
