"""Threads take as much work as they may, in order, and count what is left of it."""

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(threads=1, max_waiting=10)
    yield worker
    worker.close()


async def test_work_is_done_elsewhere(worker: Worker) -> None:
    assert await worker.start(10, lambda: 7) == 7
    await asyncio.sleep(0)  # it may have been done at once; that it is, is heard of a turn later
    assert await worker.run(10, lambda: 7) == 7


async def test_work_that_fails_fails_where_it_is_waited_for(worker: Worker) -> None:
    with pytest.raises(ZeroDivisionError):
        await worker.start(1, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await worker.run(1, lambda: 1 // 0)


async def test_what_would_be_too_much_is_not_taken_until_there_is_room_again(worker: Worker) -> None:
    go = Event()
    first, second = worker.start(6, lambda: go.wait(30)), worker.start(4, lambda: go.wait(30))
    with pytest.raises(NoText, match="busy"):
        worker.start(1, lambda: True)
    with pytest.raises(NoText, match="busy"):
        await worker.run(1, lambda: True)
    go.set()
    await asyncio.wait([first, second])
    assert await worker.start(10, lambda: True)


async def test_cancelled_and_failed_work_leaves_no_trace_in_the_count(worker: Worker) -> None:
    go = Event()
    running = worker.start(1, lambda: go.wait(30))
    never = worker.start(9, lambda: pytest.fail("started"))
    never.cancel()
    await asyncio.wait([never])
    failing = worker.start(9, lambda: 1 // 0)
    go.set()
    assert await running
    await asyncio.wait([failing])
    assert isinstance(failing.exception(), ZeroDivisionError)
    assert await worker.start(10, lambda: True)


async def test_a_caller_that_leaves_takes_its_work_along(worker: Worker) -> None:
    go = Event()
    running = worker.start(1, lambda: go.wait(30))
    leaving = asyncio.ensure_future(worker.run(9, lambda: pytest.fail("started")))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()
    assert await running
    assert await worker.start(10, lambda: True)


async def test_closing_cancels_what_has_not_begun(worker: Worker) -> None:
    go = Event()
    running, waiting = worker.start(1, lambda: go.wait(30)), worker.start(1, lambda: True)
    caller = asyncio.ensure_future(worker.run(1, lambda: True))
    await asyncio.sleep(0)
    worker.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    with pytest.raises(NoText, match="closed"):
        await caller
    with pytest.raises(NoText, match="closed"):
        worker.start(1, lambda: True)
    go.set()
    assert await running
