"""What is known of the pools is what the API server told last, however late lists, events and answers come."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration
from multipick_operator.cluster.client import Kube
from multipick_operator.cluster.pools import Key, PoolWatch

Connect = Callable[["Server"], Awaitable[PoolWatch]]
VERSION = {"version": "v1alpha1"}


def resource(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "singularName": "",
        "kind": kind,
        "namespaced": True,
        "verbs": ["list", "watch", "get", "patch"],
    }


# what kopf asks for at its start: groups, and the resources of each
SCAN: dict[str, Any] = {
    "/api": {"versions": ["v1"]},
    "/apis": {"groups": [{"name": "multipick.dev", "versions": [VERSION], "preferredVersion": VERSION}]},
    "/api/v1": {"resources": [resource("namespaces", "Namespace")]},
    "/apis/multipick.dev/v1alpha1": {"resources": [resource("inferencepools", "InferencePool")]},
}


def pool(name: str, version: int, uid: str = "1") -> dict[str, Any]:
    meta = {"namespace": "ml", "name": name, "uid": f"{name}-{uid}", "resourceVersion": str(version)}
    return {"apiVersion": "multipick.dev/v1alpha1", "kind": "InferencePool", "metadata": meta, "spec": {}}


class Server:
    """Has pools, of a version; `events` are told to who watches. `changes` are what the watch told the operator."""

    def __init__(self, version: int, *pools: dict[str, Any]) -> None:
        self.events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.changes: list[Key] = []
        self._held: asyncio.Event | None = None
        self._asked = asyncio.Event()
        self.has(version, *pools)

    def has(self, version: int, *pools: dict[str, Any]) -> None:
        self.version, self.pools = version, pools

    async def late(self, call: Any) -> tuple[asyncio.Task[Any], asyncio.Event]:
        """A call that asks for what there is now, and gets it when the event is set."""
        go = self._held = asyncio.Event()
        task = asyncio.create_task(call)
        await self._asked.wait()
        return task, go

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in SCAN:
            return web.json_response(SCAN[request.path])
        if "watch" in request.query:
            return await self._tell(request)
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [one for one in self.pools if name in ("", one["metadata"]["name"])]
        found = {"kind": "InferencePoolList", "metadata": {"resourceVersion": str(self.version)}, "items": items}
        held, self._held = self._held, None
        if held:
            self._asked.set()
            await held.wait()
        return web.json_response(found)

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            kind, one = await self.events.get()
            await response.write(json.dumps({"type": kind, "object": one}).encode() + b"\n")


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A watch of a server's pools that does not run."""
    opened: list[Any] = []

    async def made(server: Server) -> PoolWatch:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        test = TestServer(app, handler_cancellation=True)
        await test.start_server()

        async def login() -> Configuration:
            return Configuration(host=str(test.make_url("")))

        api = Kube(login)
        opened.extend((api, test))
        return PoolWatch(api, login, "me", None, "", server.changes.append, lambda: None)

    yield made
    for one in opened:
        await one.close()


@pytest.fixture
async def follow(connect: Connect) -> AsyncIterator[Connect]:
    """One that runs, and has told of all pools."""
    tasks: list[asyncio.Task[Any]] = []

    async def made(server: Server) -> PoolWatch:
        watch = await connect(server)
        tasks.append(asyncio.create_task(watch.run(lambda: None)))
        await until(lambda: len(server.changes) == 2 * len(server.pools))  # by our list, and by kopf's
        server.changes.clear()
        return watch

    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not good():
            await asyncio.sleep(0.001)


def known(watch: PoolWatch) -> dict[str, str]:
    """Versions of the pools, by name."""
    return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in watch.all()}


async def test_a_list_takes_back_nothing_that_was_told_while_it_came(follow: Connect) -> None:
    server = Server(10, pool("p", 5), pool("old", 6), pool("same", 7))
    watch = await follow(server)
    listing, go = await server.late(watch.verify())
    for event in (("MODIFIED", pool("p", 11)), ("ADDED", pool("new", 12)), ("DELETED", pool("old", 13))):
        server.events.put_nowait(event)
    await until(lambda: len(server.changes) == 3)
    server.changes.clear()
    go.set()
    await listing
    assert known(watch) == {"p": "11", "new": "12", "same": "7"}
    assert not server.changes


async def test_a_list_tells_what_the_watch_missed_and_no_older_event_undoes_it(follow: Connect) -> None:
    server = Server(10, pool("p", 5), pool("gone", 6))
    watch = await follow(server)
    server.has(20, pool("p", 15), pool("new", 16))
    await watch.verify()
    assert known(watch) == {"p": "15", "new": "16"}
    assert sorted(server.changes) == [("ml", "gone"), ("ml", "new"), ("ml", "p")]
    server.changes.clear()
    for late in (pool("p", 12), pool("gone", 13)):
        server.events.put_nowait(("MODIFIED", late))
    await until(lambda: len(server.changes) == 2)
    assert known(watch) == {"p": "15", "new": "16"}
    server.events.put_nowait(("ADDED", pool("gone", 21, uid="2")))
    await until(lambda: known(watch) == {"p": "15", "new": "16", "gone": "21"})


async def test_of_two_lists_the_older_one_brings_nothing_back(connect: Connect) -> None:
    server = Server(10, pool("p", 5), pool("gone", 6))
    watch = await connect(server)
    listing, go = await server.late(watch.verify())
    server.has(20, pool("p", 15))
    await watch.verify()
    go.set()
    await listing
    assert known(watch) == {"p": "15"}


async def test_the_end_of_a_pool_is_not_that_of_the_next_one_of_its_name(follow: Connect) -> None:
    server = Server(10, pool("p", 5))
    watch = await follow(server)
    server.events.put_nowait(("ADDED", pool("p", 12, uid="2")))
    await until(lambda: known(watch) == {"p": "12"})
    server.changes.clear()
    server.events.put_nowait(("DELETED", pool("p", 11)))
    await until(lambda: bool(server.changes))
    assert known(watch) == {"p": "12"}


async def test_the_answer_to_a_write_undoes_nothing_that_was_told_since(follow: Connect) -> None:
    server = Server(10, pool("p", 5))
    watch = await follow(server)
    watch.put(pool("p", 11))
    assert known(watch) == {"p": "11"}
    server.events.put_nowait(("MODIFIED", pool("p", 13)))
    await until(lambda: known(watch) == {"p": "13"})
    watch.put(pool("p", 12))
    watch.put(pool("nobodys", 14))
    assert known(watch) == {"p": "13"}


@pytest.mark.parametrize("before", [[], [pool("p", 5)]], ids=["there was none", "there was another state"])
async def test_a_pool_that_is_asked_for_is_the_newest_that_was_told_meanwhile(
    connect: Connect, before: list[dict[str, Any]]
) -> None:
    server = Server(10, *before)
    watch = await connect(server)
    finding, go = await server.late(watch.find(("ml", "p")))
    server.has(20, pool("p", 15))
    await watch.verify()
    go.set()
    assert await finding == pool("p", 15)


async def test_a_server_that_was_put_back_to_what_it_had_before_is_believed(connect: Connect) -> None:
    server = Server(20, pool("p", 15), pool("later", 16))
    watch = await connect(server)
    await watch.verify()
    server.has(12, pool("p", 8), pool("new", 12))
    await watch.verify()
    assert known(watch) == {"p": "8", "new": "12"}
    assert set(server.changes) == {("ml", "p"), ("ml", "later"), ("ml", "new")}
