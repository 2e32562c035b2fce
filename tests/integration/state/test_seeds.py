"""Of several Sentinels, or nodes of a Cluster, any one that answers is enough; and what stands in the way is told."""

import asyncio
from binascii import crc_hqx
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from multipick_epp.state.redis import RedisState
from multipick_epp.state.redis.connection import Connection
from multipick_sim.local.valkey import Valkey, valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]
Seed = Callable[[bytes], Awaitable[int]]


@pytest_asyncio.fixture
async def seed() -> AsyncIterator[Seed]:
    """A server that accepts, and says these bytes to whatever it is told."""
    async with AsyncExitStack() as stack:

        async def start(says: bytes) -> int:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while await reader.read(65536):
                    writer.write(says)
                writer.close()

            listener = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.callback(listener.close)
            return int(listener.sockets[0].getsockname()[1])

        yield start


async def make_cluster(client: Client, server: Valkey) -> None:
    connection = await client(server.url)
    await connection.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    async with asyncio.timeout(120):
        while b"cluster_state:ok" not in await connection.call("CLUSTER", "INFO"):
            await asyncio.sleep(0.05)


CLUSTER = {"cluster-enabled": "yes"}
JUNK = [
    b"",  # accepts, and says nothing
    b"+OK\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*1\r\n*1\r\n:1\r\n",
    b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n$1\r\nx\r\n",
    b"*2\r\n$9\r\n127.0.0.1\r\n$9\r\n999999999\r\n",
    b"*2\r\n$0\r\n\r\n$1\r\n1\r\n",
    b"-LOADING loading\r\n",
    b"-ERR unknown command\r\n",
    b"\xff\xfe\x00",
    b"*4294967295\r\n",
]


async def test_nodes_that_are_of_no_use_are_passed_over(
    seed: Seed, replica: Start, client: Client, eventually: Eventually
) -> None:
    async with valkey(CLUSTER) as server:
        await make_cluster(client, server)
        hosts = ",".join([f"127.0.0.1:{await seed(says)}" for says in JUNK])
        state = await replica(f"redis+cluster://{hosts},127.0.0.1:{server.port}")
        await eventually(lambda: state.degraded is None)


async def test_sentinels_that_are_of_no_use_are_passed_over(
    seed: Seed, server: Valkey, replica: Start, eventually: Eventually
) -> None:
    hosts = ",".join([f"127.0.0.1:{await seed(says)}" for says in JUNK])
    async with valkey({"sentinel monitor main 127.0.0.1": f"{server.port} 1"}, sentinel=True) as sentinel:
        state = await replica(f"redis+sentinel://{hosts},127.0.0.1:{sentinel.port}/main")
        await eventually(lambda: state.degraded is None)


async def test_a_sentinel_that_names_no_master_any_more_is_passed_over(
    seed: Seed, server: Valkey, replica: Start, eventually: Eventually
) -> None:
    async with valkey({"replicaof": f"127.0.0.1 {server.port}"}) as standby:
        stale = await seed(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(standby.port)), standby.port))
        async with valkey({"sentinel monitor main 127.0.0.1": f"{server.port} 1"}, sentinel=True) as sentinel:
            state = await replica(f"redis+sentinel://127.0.0.1:{stale},127.0.0.1:{sentinel.port}/main")
            await eventually(lambda: state.degraded is None)


async def test_a_wrong_password_of_a_cluster_is_told_as_such(
    seed: Seed, replica: Start, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with valkey(CLUSTER) as server:
        await make_cluster(client, server)
        await (await client(server.url)).call("CONFIG", "SET", "requirepass", "right")
        silent = await seed(b"")
        state = await replica(f"redis+cluster://:wr0ng@127.0.0.1:{server.port},127.0.0.1:{silent}")
        assert state.degraded == "writer: denied"
        assert "wr0ng" not in caplog.text


async def test_a_wrong_password_of_a_sentinel_is_told_as_such(server: Valkey, replica: Start) -> None:
    settings = {"sentinel monitor main 127.0.0.1": f"{server.port} 1", "requirepass": "right"}
    async with valkey(settings, sentinel=True) as sentinel:
        state = await replica(f"redis+sentinel://127.0.0.1:{sentinel.port}/main?sentinel_password=wrong")
        assert state.degraded == "writer: denied"


async def test_a_server_that_is_no_cluster_is_told_as_such(server: Valkey, replica: Start) -> None:
    assert (await replica(f"redis+cluster://127.0.0.1:{server.port}")).degraded == "writer: unfit"


async def test_a_slot_that_no_node_has(replica: Start, client: Client) -> None:
    async with valkey(CLUSTER) as server:
        slot = crc_hqx(b"kv:pool", 0) % 16384
        await (await client(server.url)).call("CLUSTER", "ADDSLOTS", slot + 1)
        assert (await replica(f"redis+cluster://127.0.0.1:{server.port}")).degraded == "writer: away"
