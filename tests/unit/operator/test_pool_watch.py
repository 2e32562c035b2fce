"""kopf as the watcher of the pools: what is left of it at its end."""

import asyncio
import gc

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration
from multipick_operator.cluster.client import Kube
from multipick_operator.cluster.pools import PoolWatch

GROUPS = ("apiextensions.k8s.io", "admissionregistration.k8s.io")


async def test_a_watch_that_ends_while_the_api_is_scanned_leaves_no_request_and_no_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scanned, go = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/inferencepools"):
            return web.json_response({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})
        if request.path == "/api":
            return web.json_response({"versions": ["v1"]})
        if request.path == "/apis":
            versions = [{"version": "v1"}]
            groups = [{"name": one, "versions": versions, "preferredVersion": versions[0]} for one in GROUPS]
            return web.json_response({"groups": groups})
        scanned.set()
        await go.wait()
        return web.json_response({"resources": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app, handler_cancellation=True) as server:

        async def login() -> Configuration:
            return Configuration(host=str(server.make_url("")))

        api = Kube(login)
        before = asyncio.all_tasks()
        watch = PoolWatch(api, login, "me", None, "", lambda _: None, lambda: None)
        running = asyncio.create_task(watch.run(lambda: None))
        await asyncio.wait_for(scanned.wait(), 60)
        running.cancel()
        await asyncio.wait([running])
        left = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
        assert not {name for name in left if not name.startswith("RequestHandler.")}  # the server's own
        go.set()
        await api.close()
    del running
    gc.collect()
    assert not caplog.records
