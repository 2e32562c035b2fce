"""A link begins again whatever ends its session, and says why it is down."""

import asyncio
from collections import Counter
from random import Random

import pytest
from multipick_epp.state.redis import link as link_module
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.redis.link import Link


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "FIRST_PAUSE_S", 0.0)


async def test_it_begins_again_after_every_end() -> None:
    outages: Counter[tuple[str, str]] = Counter()
    link = Link("loads", Random(0), outages, lambda: told.append(link.outage))
    seen: list[str | None] = []
    told: list[str | None] = []
    done = asyncio.Event()
    attempts = 0

    async def open_connection() -> Connection:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise LostError("away", "refused")
        return Connection(1.0)

    async def session(connection: Connection, link: Link) -> None:
        seen.append(link.outage)
        match attempts:
            case 2:
                raise LostError("denied")
            case 3:
                raise ZeroDivisionError
            case 4:
                link.up()
                seen.append(link.outage)
                connection.close(LostError("slow"))
                await asyncio.Event().wait()
            case _:
                link.up()
                done.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(link.run(open_connection, session))
    await done.wait()
    assert seen == ["away", "denied", "error", None, "slow"]
    assert told == [*seen, None], "each is told at once"
    assert link.outage is None
    assert outages == {("loads", reason): 1 for reason in ("away", "denied", "error", "slow")}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lasting_outage_is_counted_once() -> None:
    outages: Counter[tuple[str, str]] = Counter()
    link = Link("tail", Random(0), outages)
    attempts = 0
    enough = asyncio.Event()

    async def open_connection() -> Connection:
        nonlocal attempts
        attempts += 1
        if attempts > 5:
            enough.set()
        raise LostError("away")

    async def session(connection: Connection, link: Link) -> None:
        raise AssertionError

    task = asyncio.create_task(link.run(open_connection, session))
    await link.settled.wait()
    await enough.wait()
    assert outages == {("tail", "away"): 1}
    task.cancel()


async def test_it_can_be_ended_while_a_session_ends() -> None:
    link = Link("tail", Random(0), Counter())
    ending, end = asyncio.Event(), asyncio.Event()
    connections: list[Connection] = []

    async def open_connection() -> Connection:
        connections.append(Connection(1.0))
        return connections[-1]

    async def session(connection: Connection, link: Link) -> None:
        try:
            connection.close(LostError("away"))
            await asyncio.Event().wait()
        finally:
            ending.set()
            await end.wait()

    task = asyncio.create_task(link.run(open_connection, session))
    await ending.wait()
    task.cancel()
    await asyncio.sleep(0)
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 60)
    assert len(connections) == 1


async def test_nothing_that_a_session_does_ends_the_link() -> None:
    outages: Counter[tuple[str, str]] = Counter()
    link = Link("writer", Random(0), outages)
    sessions = 0
    done = asyncio.Event()

    async def open_connection() -> Connection:
        return Connection(1.0)

    async def session(connection: Connection, link: Link) -> None:
        nonlocal sessions
        sessions += 1
        link.up()
        match sessions:
            case 1:
                return
            case 2:  # something that it waited for was cancelled
                future = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            case 3:
                raise MemoryError
            case 4:
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "junk")
            case _:
                done.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(link.run(open_connection, session))
    await asyncio.wait_for(done.wait(), 60)
    assert link.outage is None
    assert outages == {("writer", "error"): 4}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
