"""What a replica believes of the loads is exact whenever it reads them: replies count in the order they come in."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from multipick_epp.state.protocol import Candidates
from multipick_epp.state.redis import RedisState, loads
from multipick_epp.tasks.cohort import Cohort
from multipick_epp.types import Endpoint, ReservationId
from multipick_sim.local.valkey import Valkey

POD = Endpoint("pod:8000")
BURSTS, BURST = 30, 40
WORK_S = 0.0001


def work() -> None:
    """What a decision does then: the loop does nothing else, and more replies come."""
    time.sleep(WORK_S)


@pytest.mark.parametrize("read", ["POLL_S", "RENEW_S"])
async def test_a_charge_counts_once_however_late_it_is_heard_of(
    server: Valkey, replica: Callable[..., Awaitable[RedisState]], monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """Members of a cohort go on some turns of the loop after the reply, and the loads are read in between."""
    monkeypatch.setattr(loads, "POLL_S", 0.0)
    monkeypatch.setattr(loads, read, 0.0)  # `RENEW_S`: with what it charges, to be put right
    _, one = await replica(server.url), await replica(server.url)  # alone, it would read them seldom
    cohort, reserved = Cohort(), 0

    async def reserve(number: int) -> None:
        nonlocal reserved
        await one.reserve(ReservationId(f"r{number}"), Candidates([POD], [1]))
        reserved += 1
        work()

    for burst in range(BURSTS):
        for number in range(BURST):
            cohort.begin(reserve(burst * BURST + number))
        async with asyncio.timeout(120):
            while reserved < (burst + 1) * BURST:
                await asyncio.sleep(0)
        assert one.load(POD).in_flight == reserved
        for number in range(0, BURST, 2):
            one.release(ReservationId(f"r{burst * BURST + number}"))
        assert one.load(POD).in_flight == reserved - BURST // 2
        for number in range(0, BURST, 2):
            await one.reserve(ReservationId(f"r{burst * BURST + number}"), Candidates([POD], [1]))
        assert one.load(POD).in_flight == reserved
    assert one.stats.recharged == one.stats.load_repairs == 0
