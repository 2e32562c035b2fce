"""The watch against a small API server that lists, streams changes and fails as the real one does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client
from multipick_epp.config import ConfigError, Kubernetes
from multipick_epp.pods import kubernetes_api, object_watch
from multipick_epp.pods.endpoints import Ranks
from multipick_epp.pods.kubernetes import PodWatch
from multipick_epp.pods.registry import Registry
from multipick_epp.types import Endpoint


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
        self.pods: list[Any] = []
        self.connections = 0
        self.answer: web.Response | None = None  # to everything, instead
        self.calls = 0
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.lists = 0
        self.watched_from: list[str] = []
        self.tokens: set[str] = set()
        self.selectors: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        if self.answer is not None:
            return web.Response(status=self.answer.status, body=self.answer.body)
        self.tokens.add(request.headers.get("authorization", ""))
        self.selectors.add(request.query["labelSelector"])
        if "watch" not in request.query:
            self.lists += 1
            return web.json_response({"metadata": {"resourceVersion": str(10 * self.lists)}, "items": self.pods})
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.events.get()) is not None:
            await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")
        return response


@asynccontextmanager
async def watching(server: ApiServer, registry: Registry) -> AsyncIterator[PodWatch]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ns/pods", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = Kubernetes("ns", {"app": "engine", "pool": "p"}, (8000,))

    async def connect() -> client.ApiClient:
        found = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
        found.api_key = {"BearerToken": f"token-{server.connections}"}
        found.api_key_prefix = {"BearerToken": "Bearer"}
        server.connections += 1
        return client.ApiClient(found)

    watch = PodWatch(config, registry, connect)
    task = asyncio.create_task(watch.follow())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_pool_is_known_after_the_first_list_and_follows_every_change() -> None:
    server, registry = ApiServer(), Registry()
    server.pods = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False)]
    async with watching(server, registry):
        await asyncio.wait_for(registry.known.wait(), 60)
        assert registry.ready().endpoints == ["10.0.0.1:8000"]
        assert set(registry.all()) == {"10.0.0.1:8000", "10.0.0.2:8000"}
        server.events.put_nowait({"type": "MODIFIED", "object": pod("b", "10.0.0.2")})
        await until(lambda: len(registry.ready().endpoints) == 2)
        server.events.put_nowait({"type": "MODIFIED", "object": pod("a", "10.0.0.1", deletionTimestamp="now")})
        await until(lambda: registry.ready().endpoints == ["10.0.0.2:8000"])
        assert "10.0.0.1:8000" in registry.all()
        server.events.put_nowait({"type": "DELETED", "object": pod("a", "10.0.0.1")})
        await until(lambda: registry.all() == ("10.0.0.2:8000",))
    assert server.tokens == {"Bearer token-0"}
    assert server.selectors == {"app=engine,pool=p"}


async def test_an_ended_watch_goes_on_from_the_last_version_without_a_list() -> None:
    server, registry = ApiServer(), Registry()
    async with watching(server, registry):
        server.events.put_nowait({"type": "ADDED", "object": pod("a", "10.0.0.1", version="17")})
        server.events.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "23"}}})
        server.events.put_nowait(None)
        await until(lambda: len(server.watched_from) == 2)
    assert server.watched_from == ["10", "23"]
    assert server.lists == 1


async def test_a_forgotten_version_leads_to_a_new_list_that_replaces_the_pool() -> None:
    server, registry = ApiServer(), Registry()
    server.pods = [pod("a", "10.0.0.1")]
    async with watching(server, registry):
        await asyncio.wait_for(registry.known.wait(), 60)
        server.pods = [pod("b", "10.0.0.2")]
        server.events.put_nowait({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
        await until(lambda: registry.all() == ("10.0.0.2:8000",))


async def test_a_new_pod_with_an_old_ones_address_is_ready() -> None:
    server, registry = ApiServer(), Registry()
    server.pods = [pod("new", "10.0.0.1"), pod("old", "10.0.0.1", ready=False)]
    async with watching(server, registry):
        await asyncio.wait_for(registry.known.wait(), 60)
        assert registry.ready().endpoints == ["10.0.0.1:8000"]


async def test_an_address_of_two_pods_stays_ready_whatever_other_pods_do() -> None:
    server, registry = ApiServer(), Registry(asks_ranks=True)
    server.pods = [pod("new", "10.0.0.1"), pod("old", "10.0.0.1", ready=False)]
    async with watching(server, registry):
        await asyncio.wait_for(registry.known.wait(), 60)
        registry.expand(Endpoint("10.0.0.1:8000"), Ranks())
        began: list[Endpoint] = []
        registry.on_anew(began.append)
        server.events.put_nowait({"type": "ADDED", "object": pod("other", "10.0.0.2", ready=False)})
        await until(lambda: len(registry.all()) == 2)
        assert registry.ready().endpoints == ["10.0.0.1:8000"]
        assert began == []


async def test_an_object_that_is_no_pod_is_passed_over() -> None:
    server, registry = ApiServer(), Registry()
    server.pods = [pod("a", "10.0.0.1"), {"metadata": {"uid": 7}}, "?", pod("b", "not an address")]
    async with watching(server, registry) as watch:
        await asyncio.wait_for(registry.known.wait(), 60)
        assert registry.all() == ("10.0.0.1:8000",)
        server.events.put_nowait({"type": "ADDED", "object": {"kind": "Status"}})
        server.events.put_nowait({"type": "ADDED", "object": None})
        server.events.put_nowait({"type": "NEWS", "object": pod("c", "10.0.0.3")})
        await until(lambda: len(registry.all()) == 2)
        assert watch.passed_over == 4
    assert server.lists == 1


@pytest.mark.parametrize(
    "event", [b"[]\n", b"{\n", b"\xff\xff\n", b'{"type": 1, "object": {}}\n', b"[" * 100_000 + b"\n"]
)
async def test_a_line_that_is_no_event_ends_the_watch_and_not_the_watching(
    event: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_watch, "_PAUSE_S", (0.001, 0.002))
    server, registry = ApiServer(), Registry()
    async with watching(server, registry):
        server.events.put_nowait(event)
        await until(lambda: len(server.watched_from) == 2)
        server.events.put_nowait({"type": "ADDED", "object": pod("a", "10.0.0.1")})
        await until(lambda: registry.all() == ("10.0.0.1:8000",))


async def test_a_watch_that_ends_at_once_is_asked_for_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_watch, "_PAUSE_S", (0.001, 3600.0))
    server, registry = ApiServer(), Registry()
    for _ in range(100):
        server.events.put_nowait(None)
    async with watching(server, registry):
        await until(lambda: len(server.watched_from) >= 8)
        assert len(server.watched_from) < 20  # the twentieth comes after minutes


async def test_a_watch_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_watch, "SILENT_S", 0.05)
    monkeypatch.setattr(object_watch, "_PAUSE_S", (0.001, 0.002))
    server, registry = ApiServer(), Registry()
    async with watching(server, registry):
        await until(lambda: server.lists >= 3)


async def test_an_event_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_watch, "MAX_EVENT_BYTES", 1000)
    monkeypatch.setattr(object_watch, "_PAUSE_S", (0.001, 0.002))
    server, registry = ApiServer(), Registry()
    async with watching(server, registry):
        server.events.put_nowait(b"x" * 2000)
        await until(lambda: server.lists == 2)


@pytest.mark.parametrize("answer", [web.Response(status=500), web.Response(status=403), web.Response(body=b"<html>")])
async def test_without_the_api_server_the_pool_stays_as_it_was(
    answer: web.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_watch, "_PAUSE_S", (0.001, 0.002))
    server, registry = ApiServer(), Registry()
    server.pods = [pod("a", "10.0.0.1")]
    async with watching(server, registry) as watch:
        await until(lambda: registry.known.is_set() and watch.outage is None)
        server.answer = answer
        server.events.put_nowait(None)
        before = server.calls
        await until(lambda: server.calls > before + 3)
        assert watch.outage is not None
        assert registry.ready().endpoints == ["10.0.0.1:8000"]
        server.answer = None
        await until(lambda: watch.outage is None)


async def test_who_is_not_known_any_more_reads_its_credentials_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_watch, "_PAUSE_S", (0.001, 0.002))
    server, registry = ApiServer(), Registry()
    server.answer = web.Response(status=401)
    async with watching(server, registry):
        await until(lambda: server.connections >= 3)
        server.answer = None
        await until(lambda: registry.known.is_set())


async def test_outside_of_a_cluster_and_without_a_kubeconfig_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no usable kubeconfig"):
        await kubernetes_api.api_client()
