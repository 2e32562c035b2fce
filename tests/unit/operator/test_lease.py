"""What a Lease promises while the API server is slow, away, or says no: nobody acts twice."""

import asyncio
from typing import Any

import pytest
from multipick_operator.children import Ref
from multipick_operator.cluster.client import ApiError
from multipick_operator.cluster.lease import Lease
from multipick_operator.cluster.writes import NotLeadingError, Writes


class Server:
    """One Lease with versions, that can hang or refuse."""

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None
        self.version = 0
        self.hangs = False
        self.refuses = False
        self.calls = 0

    async def _answer(self, timeout_s: float) -> None:
        self.calls += 1
        if self.hangs:
            await asyncio.sleep(timeout_s)
            raise TimeoutError
        if self.refuses:
            raise ApiError(403, "Forbidden", "no")

    async def get(self, ref: Ref, namespace: str, timeout_s: float) -> Any:
        await self._answer(timeout_s)
        return self.record

    async def create(self, manifest: Any, timeout_s: float) -> Any:
        await self._answer(timeout_s)
        if self.record is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self._keep(manifest)

    async def replace(self, manifest: Any, timeout_s: float) -> Any:
        await self._answer(timeout_s)
        if self.record is None:
            raise ApiError(404, "NotFound", "there is none")
        if manifest["metadata"]["resourceVersion"] != self.record["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it was changed")
        return self._keep(manifest)

    def _keep(self, manifest: Any) -> Any:
        self.version += 1
        self.record = manifest | {"metadata": manifest["metadata"] | {"resourceVersion": str(self.version)}}
        return self.record

    @property
    def holder(self) -> str:
        assert self.record is not None
        return str(self.record["spec"]["holderIdentity"])


def candidate(server: Any, name: str, duration_s: float = 0.25) -> Lease:
    return Lease(server, "ns", "lease", name, duration_s)


async def test_one_renewal_is_one_call() -> None:
    server = Server()
    lease = candidate(server, "one", 0.05)
    await lease.acquire()
    before, keeping = server.calls, asyncio.create_task(lease.keep())
    while server.version < 6:
        await asyncio.sleep(0.001)
    assert server.calls - before == 5
    keeping.cancel()


async def test_who_can_not_renew_has_let_go_before_the_next_one_takes_over() -> None:
    server = Server()
    first, second = candidate(server, "one"), candidate(server, "two")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    taking = asyncio.create_task(second.acquire())
    await asyncio.sleep(0)
    server.hangs = True
    await keeping
    assert first.left_s == 0
    assert second.left_s == 0
    server.hangs = False
    await taking
    assert server.holder == "two"


async def test_a_lease_that_somebody_else_wrote_is_lost_at_once() -> None:
    server = Server()
    lease = candidate(server, "one")
    await lease.acquire()
    assert server.record is not None
    server._keep(server.record | {"spec": server.record["spec"] | {"holderIdentity": "two"}})
    await lease.keep()
    assert lease.left_s == 0


async def test_a_lease_that_was_deleted_is_made_again() -> None:
    server = Server()
    lease = candidate(server, "one")
    await lease.acquire()
    server.record, gone = None, server.version
    keeping = asyncio.create_task(lease.keep())
    while server.version == gone:
        await asyncio.sleep(0.001)
    assert server.holder == "one"
    keeping.cancel()


async def test_a_farewell_lets_the_next_one_in_and_fails_in_silence() -> None:
    server = Server()
    first, second = candidate(server, "one", 1000), candidate(server, "two", 0.1)
    await first.acquire()
    await first.release()
    assert first.left_s == 0
    await second.acquire()
    assert server.holder == "two"
    server.refuses = True
    await second.release()
    assert second.left_s == 0


async def test_what_keeps_a_candidate_out_is_told() -> None:
    server = Server()
    server.refuses = True
    lease = candidate(server, "one")
    taking = asyncio.create_task(lease.acquire())
    while lease.trouble is None:
        await asyncio.sleep(0.001)
    assert "no" in lease.trouble
    server.refuses = False
    await taking
    assert lease.trouble is None


async def test_nothing_is_written_without_the_lease() -> None:
    class Untouched:
        async def apply(self, *_: Any) -> None:
            raise AssertionError

        create = merge = wrote = apply

    untouched: Any = Untouched()
    writes = Writes(untouched, candidate(Server(), "one"), untouched)
    with pytest.raises(NotLeadingError):
        await writes.apply({"kind": "ConfigMap"})
    with pytest.raises(NotLeadingError):
        await writes.status("ns", "p", {})
    with pytest.raises(NotLeadingError):
        await writes.event({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}, "Normal", "Ready", "", "now")
