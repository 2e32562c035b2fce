"""Every form in which a store may be deployed does the whole job: index, log, loads, lease."""

import asyncio
import re
import ssl
from binascii import crc_hqx
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
from certificates import make_certificate
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Applied, Candidates, Delta
from multipick_epp.state.redis import RedisState, parse_url
from multipick_epp.state.redis.connection import Connection, LostError
from multipick_epp.state.succession import Inheritance, Name, Names, Notes, Position, Tenure
from multipick_epp.types import BlockKey, Endpoint, Load, Mode, ReplicaId, ReservationId
from multipick_sim.local.processes import free_port
from multipick_sim.local.valkey import Valkey, valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

A = Endpoint("10.0.0.1:8000")
SLOT = Cache(A, 16)
CHAIN = [BlockKey(key) for key in range(1, 900)]
ONE = ReservationId("one")

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "state.md"
COMMANDS = re.findall(r" (\+[a-z|]+)", DOCUMENTATION.read_text())
"""What the page tells an administrator to allow. None of these costs more for a larger keyspace."""


def tokens(state: RedisState) -> int:
    return state.hits(Chains(16 * len(CHAIN) + 1, {16: CHAIN})).get(A, 0)


async def do_everything(one: RedisState, two: RedisState, eventually: Eventually) -> None:
    assert one.degraded is None
    assert two.degraded is None
    await one.take_over(A)
    assert list(await one.apply([Delta(SLOT, 1, 0, 0, CHAIN)])) == [Applied.NEW]
    assert list(await one.apply([Delta(SLOT, 1, 1, 1, (), CHAIN[500:])])) == [Applied.NEW]
    await one.set_mode(A, 1, Mode.EXACT)
    await eventually(lambda: tokens(two) == 8000 and two.mode(A) is Mode.EXACT)
    two.expect(A, 16, CHAIN[500:600], ttl_s=60)
    await eventually(lambda: tokens(one) == 9600)
    reserved = await two.reserve(ONE, Candidates([A], [100]))
    assert reserved.load == Load()
    two.progress(ONE, 40)
    await eventually(lambda: one.load(A) == Load(40, 1))
    two.move(ONE, Endpoint("elsewhere:1"))
    two.release(ONE)
    await eventually(lambda: one.load(A) == Load())
    assert await one.clear(A, 1, 2) is Applied.NEW
    await eventually(lambda: tokens(two) == 0)
    assert await one.replace(A, 1, 7, {SLOT: CHAIN[:10]}) is Applied.NEW
    await eventually(lambda: tokens(two) == 160)
    position = Position(9, 2**64 - 1, True, "tcp://10.0.0.1:5557")
    hashes, parents = [2**64 - 1 - key for key in CHAIN], [BlockKey(0), *CHAIN[:-1]]
    known = Names(16, dict(zip(hashes, CHAIN, strict=True)), parents, ())
    assert await one.note(A, 1, Notes(position, [known], {SLOT: {CHAIN[0]: 2, CHAIN[1]: 3}})) is Applied.NEW
    gone = Names(16, {}, (), hashes[10:])
    assert await one.note(A, 1, Notes(position, [gone], {SLOT: {CHAIN[1]: 1}})) is Applied.NEW
    names = dict(list(zip(hashes, map(Name, CHAIN, parents), strict=True))[:10])
    inheritance = Inheritance(position, {SLOT: set(CHAIN[:10])}, {16: names}, {SLOT: {CHAIN[0]: 2}})
    assert await two.take_over(A) == Tenure(2, 7, Mode.EXACT, inheritance)
    owned = [*one.owned([A]), *two.owned([A])]
    assert owned == [A]
    await two.drop(A)
    await eventually(lambda: not tokens(one) and one.mode(A) is Mode.BLIND)
    assert one.degraded is None
    assert two.degraded is None


async def both_own(one: RedisState, two: RedisState, eventually: Eventually) -> None:
    """Each has seen the other's lease."""
    pods = [Endpoint(f"pod-{number}") for number in range(20)]
    await eventually(lambda: len(one.owned(pods)) + len(two.owned(pods)) == 20)


async def test_a_unix_socket(replica: Start, eventually: Eventually, tmp_path: Path) -> None:
    socket = tmp_path / "s"
    async with valkey({"unixsocket": str(socket), "unixsocketperm": "700"}):
        one, two = await replica(f"unix://{socket}"), await replica(f"unix://{socket}")
        await both_own(one, two, eventually)
        await do_everything(one, two, eventually)


async def test_a_numbered_database_with_a_password(replica: Start, eventually: Eventually) -> None:
    async with valkey({"requirepass": "p@ss"}) as server:
        url = f"redis://:p%40ss@127.0.0.1:{server.port}/3"
        one, two = await replica(url), await replica(url)
        await both_own(one, two, eventually)
        await do_everything(one, two, eventually)


async def test_uvloop(server: Valkey) -> None:
    async def work() -> None:
        one, two = (RedisState(parse_url(server.url), "uv", ReplicaId(name)) for name in ("one", "two"))
        await one.start()
        await two.start()

        async def eventually(condition: Callable[[], object]) -> None:
            async with asyncio.timeout(120):
                while not condition():
                    await asyncio.sleep(0.005)

        await both_own(one, two, eventually)
        await do_everything(one, two, eventually)
        await one.close()
        await two.close()

    await asyncio.to_thread(uvloop.run, work())


async def test_tls(server: Valkey, replica: Start, proxy: Any, eventually: Eventually, tmp_path: Path) -> None:
    """The server of the wheel has no TLS; a proxy before it speaks it, as a stunnel or a mesh would."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    port = (await proxy(server.port, context)).port
    url = f"rediss://127.0.0.1:{port}?ca={certificate}"
    one, two = await replica(url), await replica(url)
    await both_own(one, two, eventually)
    await do_everything(one, two, eventually)
    distrustful = await replica(f"rediss://127.0.0.1:{port}")
    assert distrustful.degraded is not None
    assert distrustful.degraded.endswith(": denied")


@pytest.mark.parametrize("more", [(), ("-scard",)], ids=["as documented", "as documented before"])
async def test_a_user_limited_to_the_pools_keys(
    more: Sequence[str], server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    admin = await client(server.url)
    rules = ["on", ">secret", "resetkeys", "~{kv:pool}:*", "resetchannels", "-@all", *COMMANDS, *more]
    await admin.call("ACL", "SETUSER", "picker", *rules)
    await admin.call("ACL", "SETUSER", "default", "off")
    url = f"redis://picker:secret@127.0.0.1:{server.port}"
    one, two = await replica(url), await replica(url)
    await both_own(one, two, eventually)
    await do_everything(one, two, eventually)
    stranger = await replica(url, pool="another")
    assert stranger.degraded is not None
    assert stranger.degraded.endswith(": denied")
    limited = await client(url)
    with pytest.raises(LostError, match="NOPERM"):
        await limited.call("FLUSHALL")


async def test_no_command_searches_the_keyspace(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    connection = await client(server.url)
    await connection.call("CONFIG", "RESETSTAT")  # the server has asked itself something
    one, two = await replica(server.url), await replica(server.url)
    await both_own(one, two, eventually)
    await do_everything(one, two, eventually)
    await one.close()
    statistics = (await connection.call("INFO", "commandstats")).decode()
    used = {line.split(":")[0].removeprefix("cmdstat_") for line in statistics.splitlines() if ":" in line}
    assert used - {"config|resetstat"} <= {rule.removeprefix("+") for rule in COMMANDS}
    names = await connection.call("KEYS", "*")  # the test's own search
    assert all(name.startswith(b"{kv:pool}:") for name in names)
    async with asyncio.timeout(120):  # whatever the pool leaves behind expires
        while [name for name in names if await connection.call("TTL", name) == -1]:
            await asyncio.sleep(0.05)


async def test_a_cluster(replica: Start, client: Client, eventually: Eventually) -> None:
    """Two nodes; the URL names the one that does not have the pool's keys."""
    pool = "pool"
    slot = crc_hqx(f"kv:{pool}".encode(), 0) % 16384
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
    buses = [{"cluster-port": str(free_port())} for _ in range(2)]
    async with valkey(settings | buses[0]) as other, valkey(settings | buses[1]) as ours:
        other_client, our_client = await client(other.url), await client(ours.url)
        await our_client.call("CLUSTER", "ADDSLOTS", slot)
        rest = ([0, slot - 1], [slot + 1, 16383])
        await other_client.call("CLUSTER", "ADDSLOTSRANGE", *(bound for bounds in rest for bound in bounds))
        await other_client.call("CLUSTER", "SET-CONFIG-EPOCH", 1)
        await our_client.call("CLUSTER", "SET-CONFIG-EPOCH", 2)
        await other_client.call("CLUSTER", "MEET", "127.0.0.1", ours.port, buses[1]["cluster-port"])
        await until_ok(other_client, our_client)
        url = f"redis+cluster://127.0.0.1:{other.port}"
        one, two = await replica(url), await replica(url)
        await both_own(one, two, eventually)
        await do_everything(one, two, eventually)
        assert await our_client.call("DBSIZE") > 0
        assert await other_client.call("DBSIZE") == 0


async def until_ok(*nodes: Connection) -> None:
    async with asyncio.timeout(120):
        for node in nodes:
            while b"cluster_state:ok" not in (info := await node.call("CLUSTER", "INFO")) or (
                b"cluster_known_nodes:2" not in info
            ):
                await asyncio.sleep(0.05)


async def test_failover_by_sentinel(replica: Start, client: Client, eventually: Eventually) -> None:
    monitor = "sentinel monitor main 127.0.0.1"
    async with valkey() as master, valkey({"replicaof": f"127.0.0.1 {master.port}"}) as standby:
        sentinel_settings = {
            monitor: f"{master.port} 1",
            "sentinel down-after-milliseconds main": "300",
            "sentinel failover-timeout main": "3000",
        }
        async with valkey(sentinel_settings, sentinel=True) as sentinel:
            await until_replicating(await client(standby.url))
            await until_known(await client(f"redis://127.0.0.1:{sentinel.port}"))
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
            one, two = await replica(url), await replica(url)
            await both_own(one, two, eventually)
            await one.take_over(A)
            await one.apply([Delta(SLOT, 1, 0, 0, CHAIN)])
            await two.reserve(ONE, Candidates([A], [100]))
            assert await (await client(master.url)).call("WAIT", 1, 10_000) == 1
            await eventually(lambda: tokens(two) == len(CHAIN) * 16)
            await master.kill()
            await eventually(lambda: one.degraded and two.degraded)
            assert tokens(two) == len(CHAIN) * 16
            assert (await two.reserve(ReservationId("two"), Candidates([A], [1]))).load == Load(100, 1)
            await eventually(lambda: one.degraded is None and two.degraded is None)
            await eventually(lambda: one.load(A) == two.load(A) == Load(101, 2))
            assert list(await one.apply([Delta(SLOT, 1, 1, 1, (), CHAIN[1:])])) == [Applied.NEW]
            await eventually(lambda: tokens(two) == 16)


async def until_replicating(standby: Connection) -> None:
    async with asyncio.timeout(120):
        while b"master_link_status:up" not in await standby.call("INFO", "replication"):
            await asyncio.sleep(0.05)


async def until_known(sentinel: Connection) -> None:
    """A Sentinel that does not know the standby yet cannot promote it."""
    async with asyncio.timeout(120):
        replicas: Sequence[Any] = ()
        while not replicas or b"slave" not in replicas[0]:
            replicas = await sentinel.call("SENTINEL", "REPLICAS", "main")
            await asyncio.sleep(0.05)
