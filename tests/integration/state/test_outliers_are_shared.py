"""An endpoint that one picker leaves out is left out by all, also by those that come later."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
from multipick_epp.state.redis import RedisState
from multipick_epp.state.redis.connection import REPLY_BYTES, Connection
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.types import Endpoint
from multipick_sim.local.valkey import Valkey

A, B = Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")
OUTLIERS = keys_of("pool").outliers
LONG = b"9" * (REPLY_BYTES + (4 << 20))
MANY = [word for number in range(5_000) for word in (f"10.1.{number >> 8}.{number & 255}:8000", "1")]

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Connect = Callable[[str], Awaitable[Connection]]


def listening(state: RedisState) -> list[tuple[Endpoint, int]]:
    heard: list[tuple[Endpoint, int]] = []
    state.on_announced(lambda endpoint, level: heard.append((endpoint, level)))
    return heard


async def test_what_one_announces_the_others_hear_in_order(
    server: Valkey, replica: Start, eventually: Eventually
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    heard = listening(one), listening(two)
    one.announce(A, 1)
    one.announce(A, 2)
    one.announce(A, 0)
    await eventually(lambda: len(heard[1]) == 3)
    assert heard[1] == [(A, 1), (A, 2), (A, 0)]
    assert heard[0] == []


async def test_who_comes_later_is_told_what_stands(
    server: Valkey, replica: Start, eventually: Eventually, client: Connect
) -> None:
    one = await replica(server.url)
    one.announce(A, 3)
    one.announce(B, 1)
    one.announce(B, 0)
    connection = await client(server.url)
    await connection.call("PING")
    remembered: list[tuple[Endpoint, int]] = []

    def remember(state: RedisState) -> None:
        state.on_remembered(lambda endpoint, level: remembered.append((endpoint, level)))

    await replica(server.url, prepare=remember)
    assert remembered == [(A, 3)]


async def test_odd_values_cost_themselves_alone(
    server: Valkey, replica: Start, eventually: Eventually, client: Connect
) -> None:
    connection = await client(server.url)
    await connection.call("HSET", OUTLIERS, A, "2", B, "-1", "no endpoint ", "1", "10.0.0.3:1", "9" * 40)
    remembered: list[tuple[Endpoint, int]] = []

    def remember(state: RedisState) -> None:
        state.on_remembered(lambda endpoint, level: remembered.append((endpoint, level)))

    one = await replica(server.url, prepare=remember)
    assert remembered == [(A, 2)]
    assert one.degraded is None
    await connection.call("SET", OUTLIERS, "of another type")
    two = await replica(server.url)
    two.announce(A, 1)
    heard = listening(one)
    two.announce(B, 1)
    await eventually(lambda: (B, 1) in heard)
    await eventually(lambda: two.degraded is None)


@pytest.mark.parametrize(
    "junk",
    [("HSET", OUTLIERS, B, LONG), ("HSET", OUTLIERS, LONG, "1"), ("HSET", OUTLIERS, *MANY)],
    ids=["too long a value", "too long a name", "more than a pool has"],
)
async def test_what_is_larger_than_any_of_ours_is_forgotten(
    junk: Sequence[str | bytes],
    server: Valkey,
    replica: Start,
    eventually: Eventually,
    client: Connect,
) -> None:
    await (await client(server.url)).call(*junk)
    remembered: list[tuple[Endpoint, int]] = []

    def remember(state: RedisState) -> None:
        state.on_remembered(lambda endpoint, level: remembered.append((endpoint, level)))

    one = await replica(server.url, prepare=remember)
    await eventually(lambda: one.degraded is None)
    one.announce(A, 3)
    await replica(server.url, prepare=remember)
    assert remembered == [(A, 3)]
