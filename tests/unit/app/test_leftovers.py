"""What the state knows and the pool has not, for a while, is forgotten."""

from multipick_epp.app.leftovers import LOOKS, Leftovers
from multipick_epp.types import Endpoint

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")


class Pool:
    def __init__(self) -> None:
        self.known = {A, B}
        self.pool: set[Endpoint] | None = {A}
        self.dropped: list[Endpoint] = []
        self.leftovers = Leftovers(lambda: self.known, lambda: self.pool, self.drop)

    async def drop(self, endpoint: Endpoint) -> None:
        self.known.discard(endpoint)
        self.dropped.append(endpoint)

    async def look(self, times: int) -> None:
        for _ in range(times):
            await self.leftovers.look()


async def test_an_endpoint_that_nobody_saw_go_is_dropped_after_some_looks() -> None:
    pool = Pool()
    await pool.look(LOOKS - 1)
    assert pool.dropped == []
    await pool.look(5)
    assert pool.dropped == [B]


async def test_one_that_comes_in_time_stays() -> None:
    pool = Pool()
    await pool.look(LOOKS - 1)
    pool.pool = {A, B}
    await pool.look(1)
    pool.pool = {A}
    await pool.look(LOOKS - 1)
    assert pool.dropped == []


async def test_while_the_pool_is_not_known_for_sure_nothing_is_dropped() -> None:
    pool = Pool()
    await pool.look(LOOKS - 1)
    pool.pool = None
    await pool.look(10)
    pool.pool = {A}
    await pool.look(LOOKS - 1)
    assert pool.dropped == []
