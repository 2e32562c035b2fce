"""The watch against a small API server that lists, streams changes and fails as the real one does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multipick_epp.config import ConfigError, Kubernetes
from multipick_epp.pods.kubernetes import PodWatch, api_url
from multipick_epp.pods.registry import Registry


def pod(name: str, address: str, ready: bool = True, version: str = "1", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": name, "resourceVersion": version, **metadata},
        "status": {
            "podIP": address,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


class ApiServer:
    """Lists `pods`; each watch gets the next queue of events, None ends it."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.lists = 0
        self.watched_from: list[str] = []
        self.tokens: set[str] = set()
        self.selectors: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.tokens.add(request.headers.get("authorization", ""))
        self.selectors.add(request.query["labelSelector"])
        if "watch" not in request.query:
            self.lists += 1
            return web.json_response({"metadata": {"resourceVersion": str(10 * self.lists)}, "items": self.pods})
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response


@asynccontextmanager
async def watching(server: ApiServer, registry: Registry, account: Path) -> AsyncIterator[PodWatch]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ns/pods", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = Kubernetes("ns", {"app": "engine", "pool": "p"}, (8000,))
    watch = PodWatch(config, registry, f"http://127.0.0.1:{runner.addresses[0][1]}", account)
    task = asyncio.create_task(watch.follow())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_pool_is_known_after_the_first_list_and_follows_every_change(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    server, registry = ApiServer(), Registry()
    server.pods = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False)]
    async with watching(server, registry, tmp_path) as watch:
        await asyncio.wait_for(watch.synced.wait(), 10)
        assert registry.ready().endpoints == ["10.0.0.1:8000"]
        assert set(registry.all()) == {"10.0.0.1:8000", "10.0.0.2:8000"}
        server.events.put_nowait({"type": "MODIFIED", "object": pod("b", "10.0.0.2")})
        await until(lambda: len(registry.ready().endpoints) == 2)
        server.events.put_nowait({"type": "MODIFIED", "object": pod("a", "10.0.0.1", deletionTimestamp="now")})
        await until(lambda: registry.ready().endpoints == ["10.0.0.2:8000"])
        assert "10.0.0.1:8000" in registry.all()
        server.events.put_nowait({"type": "DELETED", "object": pod("a", "10.0.0.1")})
        await until(lambda: registry.all() == ("10.0.0.2:8000",))
    assert server.tokens == {"Bearer secret-token"}
    assert server.selectors == {"app=engine,pool=p"}


async def test_an_ended_watch_goes_on_from_the_last_version_without_a_list(tmp_path: Path) -> None:
    server, registry = ApiServer(), Registry()
    async with watching(server, registry, tmp_path):
        server.events.put_nowait({"type": "ADDED", "object": pod("a", "10.0.0.1", version="17")})
        server.events.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "23"}}})
        server.events.put_nowait(None)
        await until(lambda: len(server.watched_from) == 2)
    assert server.watched_from == ["10", "23"]
    assert server.lists == 1


async def test_a_forgotten_version_leads_to_a_new_list_that_replaces_the_pool(tmp_path: Path) -> None:
    server, registry = ApiServer(), Registry()
    server.pods = [pod("a", "10.0.0.1")]
    async with watching(server, registry, tmp_path) as watch:
        await asyncio.wait_for(watch.synced.wait(), 10)
        server.pods = [pod("b", "10.0.0.2")]
        server.events.put_nowait({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
        await until(lambda: registry.all() == ("10.0.0.2:8000",))


async def test_a_new_pod_with_an_old_ones_address_is_ready(tmp_path: Path) -> None:
    server, registry = ApiServer(), Registry()
    server.pods = [pod("new", "10.0.0.1"), pod("old", "10.0.0.1", ready=False)]
    async with watching(server, registry, tmp_path) as watch:
        await asyncio.wait_for(watch.synced.wait(), 10)
        assert registry.ready().endpoints == ["10.0.0.1:8000"]


def test_outside_of_a_cluster_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_HOST"):
        api_url()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert api_url() == "https://10.96.0.1:6443"
