"""A pool that a Gateway API InferencePool describes, against a small API server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client
from multipick_epp.config import InferencePoolName
from multipick_epp.pods.inference_pool import API, InferencePoolWatch
from multipick_epp.pods.registry import Registry


def pod(name: str, address: str, **labels: str) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"uid": name, "resourceVersion": "1", "labels": labels},
        "status": {"podIP": address, "phase": "Running", "conditions": ready},
    }


def pool(ports: list[int], name: str = "p", **labels: str) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": labels}, "targetPorts": [{"number": port} for port in ports]}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}, "spec": spec}


class Cluster:
    """Pods by label, and one pool whose changes are streamed."""

    def __init__(self) -> None:
        self.pods = [pod("a", "10.0.0.1", app="x"), pod("b", "10.0.0.2", app="y")]
        self.pools: list[dict[str, Any]] = []
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked: set[str] = set()

    async def list_pools(self, request: web.Request) -> web.StreamResponse:
        self.asked.add(request.query["fieldSelector"])
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.pools})
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(json.dumps(await self.events.get()).encode() + b"\n")

    async def list_pods(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.Event().wait()
        wanted = dict(pair.split("=") for pair in request.query["labelSelector"].split(","))
        found = [each for each in self.pods if wanted.items() <= each["metadata"]["labels"].items()]
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": found})


@asynccontextmanager
async def watching(cluster: Cluster, registry: Registry) -> AsyncIterator[InferencePoolWatch]:
    app = web.Application()
    app.router.add_get(f"{API}/namespaces/ns/inferencepools", cluster.list_pools)
    app.router.add_get("/api/v1/namespaces/ns/pods", cluster.list_pods)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def connect() -> client.ApiClient:
        return client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))

    watch = InferencePoolWatch(InferencePoolName("p", "ns"), registry, connect)
    task = asyncio.create_task(watch.follow())
    try:
        yield watch
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.requirement("suite: Endpoints are the pods that the InferencePool selects, at each of its target ports.")
async def test_selector_and_ports_are_followed() -> None:
    cluster, registry = Cluster(), Registry()
    cluster.pools = [pool([8000, 8001], app="x")]
    async with watching(cluster, registry) as watch:
        await asyncio.wait_for(registry.known.wait(), 60)
        assert registry.ready().endpoints == ["10.0.0.1:8000", "10.0.0.1:8001"]
        cluster.events.put_nowait({"type": "MODIFIED", "object": pool([9000], app="x")})
        await until(lambda: registry.ready().endpoints == ["10.0.0.1:9000"])
        cluster.events.put_nowait({"type": "MODIFIED", "object": pool([9000], app="y")})
        await until(lambda: registry.ready().endpoints == ["10.0.0.2:9000"])
        await until(lambda: watch.outage is None)
    assert cluster.asked == {"metadata.name=p"}


@pytest.mark.requirement("suite: Endpoints are the pods that the InferencePool selects, at each of its target ports.")
async def test_a_pool_that_is_deleted_has_no_endpoints_until_it_is_there_again() -> None:
    cluster, registry = Cluster(), Registry()
    cluster.pools = [pool([8000], app="x")]
    async with watching(cluster, registry) as watch:
        await asyncio.wait_for(registry.known.wait(), 60)
        cluster.events.put_nowait({"type": "DELETED", "object": pool([8000], app="x")})
        await until(lambda: not registry.all())
        assert watch.outage == "no InferencePool ns/p"
        cluster.events.put_nowait({"type": "ADDED", "object": pool([8000], app="y")})
        await until(lambda: registry.ready().endpoints == ["10.0.0.2:8000"])


async def test_a_pool_that_is_not_there_is_not_known() -> None:
    cluster, registry = Cluster(), Registry()
    async with watching(cluster, registry) as watch:
        await until(lambda: watch.outage == "no InferencePool ns/p")
        assert not registry.known.is_set()
        cluster.events.put_nowait({"type": "ADDED", "object": pool([8000], app="x")})
        await asyncio.wait_for(registry.known.wait(), 60)


@pytest.mark.parametrize(
    "odd",
    [
        pool([], app="x"),
        pool([0], app="x"),
        pool([8000]),
        pool([8000], name="another", app="x"),
        {"metadata": {"name": "p", "uid": "u"}, "spec": {"selector": "x"}},
        {"metadata": None},
    ],
)
async def test_what_is_no_such_pool_changes_nothing(odd: dict[str, Any]) -> None:
    cluster, registry = Cluster(), Registry()
    cluster.pools = [pool([8000], app="x")]
    async with watching(cluster, registry):
        await asyncio.wait_for(registry.known.wait(), 60)
        cluster.events.put_nowait({"type": "MODIFIED", "object": odd})
        cluster.events.put_nowait({"type": "MODIFIED", "object": pool([8001], app="x")})
        await until(lambda: registry.ready().endpoints == ["10.0.0.1:8001"])
