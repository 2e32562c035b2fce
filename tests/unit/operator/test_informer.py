"""What an informer knows: what the API server told last, and what we wrote since."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from multipick_operator.cluster.client import ApiError, Event
from multipick_operator.cluster.informer import Informer
from multipick_operator.cluster.kinds import Watched

KIND = Watched("v1", "Service", "l")


def service(name: str, version: int, pool: str = "p", **more: Any) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": name, "resourceVersion": str(version), "labels": {"multipick.dev/pool": pool}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta | more}


class Server:
    """Lists in order; events as they are put into the queue, None ends an answer, an error is raised."""

    def __init__(self, *lists: tuple[list[Any], int]) -> None:
        self.lists = list(lists)
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.since: list[str] = []

    async def list(self, *_: Any) -> Any:
        found, version = self.lists.pop(0)
        return found, str(version)

    async def watch(self, version: str, kind: str, namespace: None, labels: str, since: str) -> AsyncIterator[Event]:
        self.since.append(since)
        while (event := await self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


class Run:
    def __init__(self, server: Any) -> None:
        self.changed: list[str] = []
        self.informer = Informer(server, KIND, None, lambda one: self.changed.append(one["metadata"]["name"]))
        self.in_step = 0

    async def __aenter__(self) -> "Run":
        self.task = asyncio.create_task(self.informer.run(self._step))
        await self.until(lambda: self.informer.synced or self.task.done())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, good: Any) -> None:
        async with asyncio.timeout(60):
            while not good():
                await asyncio.sleep(0.001)

    def version(self, name: str) -> str | None:
        found = self.informer.find("ns", name)
        return str(found["metadata"]["resourceVersion"]) if found else None

    def _step(self) -> None:
        self.in_step += 1


async def test_objects_are_found_by_name_and_by_pool() -> None:
    async with Run(Server(([service("a", 1), service("b", 2), service("c", 3, pool="q")], 3))) as run:
        assert run.version("a") == "1"
        assert [one["metadata"]["name"] for one in run.informer.of_pool("ns", "p")] == ["a", "b"]
        assert run.informer.of_pool("ns", "nobody") == []


async def test_events_change_what_is_known_and_a_watch_goes_on_from_its_bookmark() -> None:
    server = Server(([service("a", 1)], 5))
    async with Run(server) as run:
        for event in (
            Event("MODIFIED", service("a", 6, pool="q")),
            Event("ADDED", service("b", 7)),
            Event("DELETED", service("b", 8)),
            Event("BOOKMARK", {"metadata": {"resourceVersion": "20"}}),
            None,
        ):
            server.events.put_nowait(event)
        await run.until(lambda: len(server.since) == 2)
        assert server.since == ["5", "20"]
        assert (run.version("a"), run.version("b")) == ("6", None)
        assert [one["metadata"]["name"] for one in run.informer.of_pool("ns", "q")] == ["a"]
        assert run.informer.of_pool("ns", "p") == []
        assert run.changed == ["a", "a", "b", "b"]


async def test_a_version_too_old_means_a_new_list_which_tells_what_went_meanwhile() -> None:
    server = Server(([service("a", 1), service("b", 2)], 2), ([service("a", 1)], 9))
    async with Run(server) as run:
        run.changed.clear()
        server.events.put_nowait(ApiError(410, "Gone", "too old"))
        await run.until(lambda: server.since == ["2", "9"])
        assert run.version("b") is None
        assert run.changed == ["b", "a"]
        assert run.in_step == 2


@pytest.mark.parametrize("error", [ApiError(403, "Forbidden", "no"), TimeoutError(), ValueError("no JSON")])
async def test_any_other_end_is_the_supervisors(error: Exception) -> None:
    server = Server(([service("a", 1)], 2))
    async with Run(server) as run:
        server.events.put_nowait(error)
        await run.until(run.task.done)
        assert run.task.exception() is error
        assert not run.informer.synced


async def test_our_own_writes_are_known_at_once_and_older_words_do_not_undo_them() -> None:
    server = Server(([service("a", 1)], 2), ([service("a", 3)], 4))
    async with Run(server) as run:
        run.informer.put(service("a", 5))
        run.informer.put(service("new", 6))
        server.events.put_nowait(Event("MODIFIED", service("a", 3)))
        server.events.put_nowait(Event("DELETED", service("new", 4)))  # an earlier one of that name
        server.events.put_nowait(ApiError(410, "Gone", "too old"))
        await run.until(lambda: server.since == ["2", "4"])
        assert (run.version("a"), run.version("new")) == ("5", "6")
        run.informer.drop(service("new", 6))
        assert run.version("new") is None


async def test_an_etcd_that_was_put_back_is_believed() -> None:
    """Its objects, and what will be told of them, have lower versions than those that were known."""
    server = Server(([service("a", 70), service("b", 71)], 80), ([service("a", 30)], 40))
    async with Run(server) as run:
        server.events.put_nowait(Event("ADDED", service("c", 90)))
        await run.until(lambda: run.version("c"))
        run.informer.put(service("d", 91))
        run.changed.clear()
        server.events.put_nowait(ApiError(410, "Gone", "too old"))
        await run.until(lambda: server.since == ["80", "40"])
        assert [run.version(name) for name in "abcd"] == ["30", None, None, None]
        assert sorted(run.changed) == ["a", "b", "c", "d"]
        server.events.put_nowait(Event("MODIFIED", service("a", 41)))
        await run.until(lambda: run.version("a") == "41")
        assert [one["metadata"]["name"] for one in run.informer.of_pool("ns", "p")] == ["a"]


async def test_what_nobody_reads_is_not_kept() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "ns", "name": "x", "resourceVersion": "1", "managedFields": [1]},
        "spec": {"nodeName": "n", "containers": [{"name": "engine", "image": "i", "ports": [{"containerPort": 1}]}]},
        "status": {"phase": "Running"},
    }
    async with Run(Server(([pod], 1))) as run:
        found = run.informer.find("ns", "x")
        assert found is not None
        assert found["spec"] == {"containers": [{"name": "engine", "ports": [{"containerPort": 1}]}]}
        assert "managedFields" not in found["metadata"]
        assert found["status"] == {"phase": "Running"}
