"""What lives long is started again when it fails, with a growing pause, and says so."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from multipick_epp.tasks import supervisor as supervisor_module
from multipick_epp.tasks.supervisor import Failure, Supervisor


@pytest.fixture
async def supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(supervisor_module, "_PAUSE_S", (0.001, 0.002))
    supervisor = Supervisor()
    yield supervisor
    await supervisor.close()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_work_that_fails_is_started_again(supervisor: Supervisor) -> None:
    runs: list[int] = []

    async def work() -> None:
        runs.append(1)
        if len(runs) < 4:
            raise ValueError("a look failed")
        await asyncio.Event().wait()

    supervisor.keep("looks", work, "10.0.0.1:8000")
    await eventually(lambda: len(runs) == 4)
    assert supervisor.restarts == {"looks": 3}
    assert supervisor.failing == [Failure("looks", "10.0.0.1:8000", "a look failed")]


async def test_one_that_fails_costs_no_other(supervisor: Supervisor) -> None:
    async def fails() -> None:
        raise RuntimeError

    beats = 0

    async def works() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    supervisor.keep("fails", fails)
    supervisor.keep("works", works)
    await eventually(lambda: beats > 100 and supervisor.restarts["fails"] > 3)
    assert [failure.why for failure in supervisor.failing] == ["RuntimeError"]


async def test_a_failure_is_forgotten_when_it_is_long_ago(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = False

    async def once() -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise ValueError
        await asyncio.Event().wait()

    supervisor.keep("once", once)
    await eventually(lambda: supervisor.restarts["once"] == 1)
    monkeypatch.setattr(supervisor_module, "LONG_ENOUGH_S", 0.0)
    await asyncio.sleep(0.001)
    assert supervisor.failing == []


async def test_work_that_returns_is_done_and_what_is_cancelled_stays_so(supervisor: Supervisor) -> None:
    async def done() -> None:
        return

    async def waits() -> None:
        await asyncio.Event().wait()

    await supervisor.keep("done", done)
    task = supervisor.keep("waits", waits)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not supervisor.restarts
