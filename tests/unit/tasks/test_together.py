"""Sleepers that are due at about the same time wake together, never late, and a bounded number in one moment."""

import asyncio
import time
from collections.abc import Callable
from random import Random

import pytest
import uvloop
from multipick_epp.tasks.together import Together


async def wakes(together: Together, *seconds: float) -> list[list[float]]:
    """How long each slept, by the turn of the loop that it woke in."""
    loop = asyncio.get_running_loop()
    began, turn = loop.time(), 0
    woken: dict[int, list[float]] = {}

    async def sleep(for_s: float) -> None:
        await together.sleep(for_s)
        woken.setdefault(turn, []).append(loop.time() - began)

    sleepers = [asyncio.create_task(sleep(each)) for each in seconds]
    async with asyncio.timeout(60):
        while not all(each.done() for each in sleepers):
            await asyncio.sleep(0)
            turn += 1
    return [*woken.values()]


async def test_who_is_due_soon_wakes_with_who_is_due_now() -> None:
    together = Together(8, 0.5)  # so much later may a busy machine have begun the others
    later = asyncio.create_task(together.sleep(60.0))
    [first] = await wakes(together, 0.1, 0.12, 0.14)
    assert len(first) == 3
    assert min(first) >= 0.1
    assert not later.done()
    later.cancel()


async def test_only_so_many_wake_in_one_moment() -> None:
    woken = await wakes(Together(3, 0.05), *(0.01 for _ in range(8)))
    assert [*map(len, woken)] == [3, 3, 2]


async def test_one_that_is_due_earlier_is_not_kept_waiting() -> None:
    together, loop = Together(8, 0.0), asyncio.get_running_loop()
    late = asyncio.create_task(together.sleep(60.0))
    await asyncio.sleep(0)
    began = loop.time()
    async with asyncio.timeout(60):
        await together.sleep(0.01)
    assert loop.time() - began >= 0.01
    assert not late.done()
    late.cancel()


async def test_one_that_was_cancelled_takes_nobody_s_place() -> None:
    together = Together(2, 1.0)
    sleepers = [asyncio.create_task(together.sleep(0.05)) for _ in range(4)]
    await asyncio.sleep(0)
    for each in sleepers[:2]:
        each.cancel()
    assert [*map(len, await wakes(together, 0.05))] == [1]
    async with asyncio.timeout(60):
        await asyncio.gather(*sleepers[2:])


async def test_those_that_come_again_go_on_together() -> None:
    together, rounds = Together(8, 0.3), 3
    woken: list[list[str]] = [[] for _ in range(rounds)]
    turns: list[set[int]] = [set() for _ in range(rounds)]
    turn = 0

    async def look(name: str, first_s: float) -> None:
        pause_s = first_s
        for each in range(rounds):
            await together.sleep(pause_s)
            woken[each].append(name)
            turns[each].add(turn)
            pause_s = 0.4

    looks = [asyncio.create_task(look(name, first_s)) for name, first_s in (("a", 0.02), ("b", 0.04), ("c", 0.06))]
    async with asyncio.timeout(60):
        while not all(each.done() for each in looks):
            await asyncio.sleep(0)
            turn += 1
    assert [sorted(each) for each in woken] == [["a", "b", "c"]] * rounds
    assert [*map(len, turns)] == [1] * rounds


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_many_looks_go_on_for_ever_whatever_the_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Also those that are due at once, and those whose time has passed while the loop did something else."""
    rng = Random(1)

    async def look(together: Together) -> None:
        for _ in range(100):
            await together.sleep(rng.choice((0.0, 0.0001, 0.001, 0.002)))
            if rng.random() < 0.1:
                hold_the_loop()

    async def looks() -> None:
        together = Together(8, 0.001)
        async with asyncio.timeout(30):
            await asyncio.gather(*(look(together) for _ in range(30)))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(looks())


def hold_the_loop() -> None:
    time.sleep(0.001)
