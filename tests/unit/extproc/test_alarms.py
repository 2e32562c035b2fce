"""Many alarms on one timer."""

import asyncio
from collections.abc import Callable

import pytest
from multipick_epp.extproc import alarms as alarms_module
from multipick_epp.extproc.alarms import Alarms


class Bells:
    def __init__(self, count: int) -> None:
        self.rung: list[int] = []
        self.calls = [self._call(number) for number in range(count)]

    def _call(self, number: int) -> Callable[[], None]:
        return lambda: self.rung.append(number)

    async def until(self, count: int) -> None:
        while len(self.rung) < count:
            await asyncio.sleep(0.001)


async def test_they_ring_once_in_their_order_and_not_before_their_time() -> None:
    alarms, bells, loop = Alarms(0.05), Bells(3), asyncio.get_running_loop()
    alarms.set(bells.calls[0])
    await asyncio.sleep(0.02)
    last = loop.time()
    alarms.set(bells.calls[1])
    alarms.set(bells.calls[2])
    await bells.until(3)
    assert loop.time() - last > 0.04
    await asyncio.sleep(0.06)
    assert bells.rung == [0, 1, 2]


async def test_what_is_called_off_does_not_ring_and_the_others_do() -> None:
    alarms, bells = Alarms(0.01), Bells(3)
    for call in bells.calls:
        alarms.set(call)
    alarms.off(bells.calls[0])
    alarms.off(bells.calls[1])
    alarms.off(bells.calls[1])
    await bells.until(1)
    assert bells.rung == [2]


async def test_one_that_is_set_when_all_have_rung_or_while_one_rings_rings_too() -> None:
    alarms, bells = Alarms(0.01), Bells(3)
    alarms.set(bells.calls[0])
    await bells.until(1)
    alarms.set(lambda: alarms.set(bells.calls[1]))
    await bells.until(2)
    alarms.set(bells.calls[2])
    alarms.off(bells.calls[2])
    await asyncio.sleep(0.03)
    alarms.set(bells.calls[2])
    await bells.until(3)
    assert bells.rung == [0, 1, 2]


async def test_one_that_fails_keeps_no_other_from_ringing(caplog: pytest.LogCaptureFixture) -> None:
    alarms, bells = Alarms(0.01), Bells(1)
    alarms.set(lambda: bells.rung.remove(5))
    alarms.set(bells.calls[0])
    await bells.until(1)
    assert "ValueError" in caplog.text


async def test_where_the_process_stood_still_they_wait_once_for_what_was_to_be_done_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(alarms_module, "monotonic", lambda: now)
    alarms, bells = Alarms(60.0), Bells(1)
    alarms.set(bells.calls[0])
    now = 61.0
    alarms._look()
    assert bells.rung == []
    now = 70.0  # a process that stands still again and again
    alarms._look()
    assert bells.rung == [0]
