"""A pod that was deleted while no picker ran leaves every mirror, and the store."""

from collections.abc import Awaitable, Callable

from multipick_epp.app.leftovers import LOOKS, Leftovers
from multipick_epp.state.cache import Cache
from multipick_epp.state.redis import RedisState
from multipick_epp.state.redis.connection import Connection
from multipick_epp.types import BlockKey, Endpoint, Mode
from multipick_sim.local.valkey import Valkey

HERE, GONE, MODE_ONLY = (Endpoint(f"10.0.0.{number}:8000") for number in range(1, 4))


async def test_what_no_pod_is_behind_is_forgotten_by_all(
    server: Valkey,
    replica: Callable[..., Awaitable[RedisState]],
    eventually: Callable[..., Awaitable[None]],
    client: Callable[[str], Awaitable[Connection]],
) -> None:
    before = await replica(server.url)
    for endpoint in (HERE, GONE):
        await before.replace(endpoint, 1, 0, {Cache(endpoint, 16): [BlockKey(1), BlockKey(2)]})
        await before.set_mode(endpoint, 1, Mode.EXACT)
    await before.take_over(MODE_ONLY)
    await before.set_mode(MODE_ONLY, 1, Mode.APPROX)
    await before.close()
    one, two = await replica(server.url), await replica(server.url)
    assert set(one.index.known()) == {HERE, GONE, MODE_ONLY}
    leftovers = Leftovers(one.index.known, lambda: [HERE], one.drop)
    for _ in range(LOOKS):
        await leftovers.look()
    await eventually(lambda: set(one.index.known()) == set(two.index.known()) == {HERE})
    connection = await client(server.url)
    assert not [key for key in await connection.call("KEYS", "*") if b"10.0.0.2" in key or b"10.0.0.3" in key]
