"""A coroutine begun at once ends as it would have in `await`, whatever it waits for and whoever ends the wait."""

import asyncio
import time

import pytest
from multipick_epp.tasks.cohort import stage
from multipick_epp.tasks.eager import Rest, begun, in_task


async def _twice(value: "asyncio.Future[int]") -> int:
    await asyncio.sleep(0)
    return 2 * await value


async def test_what_waits_for_nothing_is_done() -> None:
    async def seven() -> int:
        return 7

    assert await begun(seven()) == 7


async def test_a_stage_is_no_wait() -> None:
    async def in_stages() -> int:
        await stage()
        await stage()
        return 7

    assert await begun(in_stages()) == 7


async def test_in_a_task_what_asks_for_one_goes_on() -> None:
    async def seven() -> int:
        await in_task()
        return 7

    assert await begun(seven()) == 7


async def test_what_waits_is_done_when_it_is_awaited() -> None:
    value = asyncio.get_running_loop().create_future()
    rest = await begun(_twice(value))
    assert isinstance(rest, Rest)
    asyncio.get_running_loop().call_soon(value.set_result, 21)
    assert await rest == 42


async def test_what_was_there_before_the_await_is_waited_for_no_longer() -> None:
    async def slow() -> str:
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.001), 60)
        return "done"

    rest = await begun(slow())
    assert isinstance(rest, Rest)
    await asyncio.sleep(0.02)
    assert await rest == "done"


async def test_an_error_comes_out_at_once_or_at_the_await() -> None:
    async def fails(*, late: bool) -> None:
        if late:
            await asyncio.sleep(0.001)
        raise ValueError("late" if late else "early")

    with pytest.raises(ValueError, match="early"):
        await begun(fails(late=False))
    rest = await begun(fails(late=True))
    assert isinstance(rest, Rest)
    with pytest.raises(ValueError, match="late"):
        await rest


async def test_a_timeout_ends_the_wait_and_the_coroutine_cleans_up() -> None:
    cleaned = []

    async def waits() -> None:
        try:
            async with asyncio.timeout(3_600):  # opened before the one outside, which ends first
                await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    rest = await begun(waits())
    assert isinstance(rest, Rest)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await rest
    assert cleaned == [True]


async def test_a_timeout_inside_is_the_coroutines_own() -> None:
    async def waits() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "late"
        return "never"

    rest = await begun(waits())
    assert isinstance(rest, Rest)
    async with asyncio.timeout(3_600):
        assert await rest == "late"


async def test_a_task_that_is_cancelled_before_it_ran_gives_up_what_the_coroutine_waits_for() -> None:
    awaited = asyncio.get_running_loop().create_future()
    given_up = []

    async def waits() -> None:
        try:
            await awaited
        except asyncio.CancelledError:
            given_up.append(awaited.cancelled())
            raise

    rest = await begun(waits())
    assert isinstance(rest, Rest)
    task: asyncio.Task[None] = asyncio.create_task(rest)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert given_up == [True]
