"""Threads take as much work as they may, in order, and count what is left of it."""

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest
from multipick_epp.tokens.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(threads=1, max_waiting=10)
    yield worker
    worker.close()


async def test_work_is_done_elsewhere(worker: Worker) -> None:
    future = worker.start(10, lambda: 7)
    assert future is not None
    assert await future == 7


async def test_work_that_fails_fails_where_it_is_waited_for(worker: Worker) -> None:
    future = worker.start(1, lambda: 1 // 0)
    assert future is not None
    with pytest.raises(ZeroDivisionError):
        await future


async def test_what_would_be_too_much_is_not_taken_until_there_is_room_again(worker: Worker) -> None:
    go = Event()
    first, second = worker.start(6, lambda: go.wait(30)), worker.start(4, lambda: go.wait(30))
    assert first is not None
    assert second is not None
    assert worker.start(1, lambda: True) is None
    go.set()
    await asyncio.wait([first, second])
    third = worker.start(10, lambda: True)
    assert third is not None
    assert await third


async def test_cancelled_and_failed_work_leaves_no_trace_in_the_count(worker: Worker) -> None:
    go = Event()
    running = worker.start(1, lambda: go.wait(30))
    never = worker.start(9, lambda: pytest.fail("started"))
    assert running is not None
    assert never is not None
    never.cancel()
    await asyncio.wait([never])
    failing = worker.start(9, lambda: 1 // 0)
    assert failing is not None
    go.set()
    assert await running
    await asyncio.wait([failing])
    assert isinstance(failing.exception(), ZeroDivisionError)
    assert worker.start(10, lambda: True) is not None


async def test_closing_cancels_what_has_not_begun(worker: Worker) -> None:
    go = Event()
    running, waiting = worker.start(1, lambda: go.wait(30)), worker.start(1, lambda: True)
    assert running is not None
    assert waiting is not None
    worker.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    go.set()
    assert await running
