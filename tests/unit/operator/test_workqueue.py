import asyncio
from collections.abc import Awaitable, Callable

import pytest
from multipick_operator.workqueue import WorkQueue


class Workers:
    """Workers of a queue for the length of a test."""

    def __init__(self, queue: WorkQueue[str], handler: Callable[[str], Awaitable[float | None]], count: int) -> None:
        self.tasks = [asyncio.create_task(queue.work(handler)) for _ in range(count)]

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_what_is_added_often_is_done_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    done: list[str] = []

    async def handle(key: str) -> None:
        done.append(key)

    for _ in range(5):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    async with Workers(queue, handle, 1):
        await queue.settle()
    assert done == ["a", "b"]


async def test_a_key_is_never_worked_on_twice_at_once_and_is_done_again_if_it_changed_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    started, go = asyncio.Semaphore(0), asyncio.Semaphore(0)
    running = most = runs = 0

    async def handle(key: str) -> None:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        started.release()
        await go.acquire()
        running -= 1

    async with Workers(queue, handle, 3):
        queue.add("a")
        await started.acquire()
        queue.add("a")
        queue.add("a")
        go.release()
        await started.acquire()
        go.release()
        await queue.settle()
    assert (most, runs) == (1, 2)


async def test_different_keys_are_worked_on_side_by_side() -> None:
    queue: WorkQueue[str] = WorkQueue()
    both = asyncio.Barrier(2)

    async def handle(key: str) -> None:
        await both.wait()

    async with Workers(queue, handle, 2):
        queue.add("a")
        queue.add("b")
        await asyncio.wait_for(queue.settle(), 60)


async def test_a_failure_is_tried_again_until_it_works() -> None:
    queue: WorkQueue[str] = WorkQueue(base_s=0.001)
    failures = 3
    worked = asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError
        worked.set()

    async with Workers(queue, handle, 1):
        queue.add("a")
        await asyncio.wait_for(worked.wait(), 60)
    assert failures == 0


async def test_the_handler_says_when_to_look_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    runs = 0
    twice = asyncio.Event()

    async def handle(key: str) -> float | None:
        nonlocal runs
        runs += 1
        if runs == 2:
            twice.set()
        return 0.001 if runs < 2 else None

    async with Workers(queue, handle, 1):
        queue.add("a")
        await asyncio.wait_for(twice.wait(), 60)


async def test_of_two_timers_for_a_key_the_earlier_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    done = asyncio.Event()

    async def handle(key: str) -> None:
        done.set()

    async with Workers(queue, handle, 1):
        queue.add_after("a", 1000)
        queue.add_after("a", 0.001)
        queue.add_after("a", 2000)
        await asyncio.wait_for(done.wait(), 60)
    queue.close()


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.05), (2, 0.1), (5, 0.8), (11, 51.2), (12, 60), (1000, 60)])
async def test_the_wait_doubles_up_to_a_minute(failures: int, seconds: float) -> None:
    assert WorkQueue[str]().backoff_s(failures) == pytest.approx(seconds)
