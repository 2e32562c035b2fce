"""What the streams take of the server's memory, whatever is routed and stored: as docs/state.md says."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Delta
from multipick_epp.state.redis import RedisState
from multipick_epp.state.redis.connection import Connection
from multipick_epp.types import BlockKey, Endpoint
from multipick_sim.local.valkey import Valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A = Endpoint("10.0.0.1:8000")
DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "state.md").read_text()
LOG_MB, HINTS_MB = map(int, re.findall(r"at most (\d+) MB for the log and (\d+) MB for the hints", DOCUMENTATION)[0])


async def used(connection: Connection, name: str) -> int:
    return int(await connection.call("MEMORY", "USAGE", "{kv:pool}:" + name, "SAMPLES", 0) or 0)  # not there: none


@pytest.mark.timeout(900)  # half a minute's work, where nothing else is done
async def test_hints_of_prompts_of_a_million_tokens(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    one, two = await replica(server.url), await replica(server.url)
    connection = await client(server.url)
    for first in range(0, 1_400 * 62_500, 62_500):
        keys = [BlockKey(first + key) for key in range(2_000)] if first else list(map(BlockKey, range(62_500)))
        one.expect(A, 16, keys, ttl_s=0.1)
        await asyncio.sleep(0)  # the store is read on
        if first % (50 * 62_500) == 0:
            await connection.call("PING")
            assert await used(connection, "hints") < HINTS_MB * 1_000_000
    await one.take_over(A)
    await eventually(lambda: two.block_size(A) == 16)
    assert await connection.call("XLEN", "{kv:pool}:hints") >= 1_000
    assert await used(connection, "hints") < HINTS_MB * 1_000_000
    await eventually(lambda: one.degraded is two.degraded is None)


async def test_a_log_of_the_smallest_and_of_the_largest_deltas(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """Filled to a tenth: 2,000 entries."""
    state = await replica(server.url, picks=False)
    connection = await client(server.url)
    pods = [Endpoint(f"a-pod-with-a-long-name-{number:04}.model-server.namespace.svc:8000") for number in range(64)]
    for pod in pods:
        await state.take_over(pod)
    seq = 0
    while await connection.call("XLEN", "{kv:pool}:log") < 2_000:
        small = [Delta(Cache(pod, 16), 1, seq, seq, [BlockKey(1)]) for pod in pods]
        large = [Delta(Cache(pod, 16), 1, seq + 1, seq + 1, [BlockKey(key) for key in range(512)]) for pod in pods]
        assert set(await state.apply(small + large)) == {Applied.NEW}
        seq += 2
    entries = await connection.call("XLEN", "{kv:pool}:log")
    assert await used(connection, "log") / entries * 20_100 < LOG_MB * 1_000_000
