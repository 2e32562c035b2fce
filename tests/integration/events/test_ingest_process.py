"""The ingest in its own process, before a real Valkey: killed, orphaned, its store emptied, its work shared."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.config import Events
from multipick_epp.events.child import IngestOptions
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.ingest import Ingest
from multipick_epp.events.process import IngestProcess
from multipick_epp.state.redis.address import parse_url
from multipick_epp.state.redis.state import RedisState
from multipick_epp.types import Endpoint, Mode, ReplicaId
from multipick_sim.local.valkey import Valkey, valkey

POD = Endpoint("127.0.0.1:9")
IDS = list(range(1, 10))
SIZE = 2
ROOT = root_key(b"secret", "model")
CHAINS = Chains(len(IDS), {SIZE: block_keys(ROOT, IDS, SIZE)})


@pytest.fixture
async def store_server() -> AsyncIterator[Valkey]:
    async with valkey({"requirepass": "hush"}) as server:
        yield server


@pytest.fixture
async def picker(store_server: Valkey) -> AsyncIterator[RedisState]:
    """The state of a picker that ingests elsewhere."""
    server = parse_url(store_server.url.replace("://", "://:hush@"))
    state = RedisState(server, "pool", ReplicaId("picker"), ingests=False)
    await state.start()
    yield state
    await state.close()


@pytest.fixture
async def ingest(store_server: Valkey) -> AsyncIterator[IngestProcess]:
    ingest = IngestProcess(settings(store_server))
    await ingest.start()
    yield ingest
    await ingest.close()


def settings(server: Valkey) -> IngestOptions:
    return IngestOptions(server.url, "hush", "pool", "model", b"secret", Ports(), "warning")


def knows(picker: RedisState, tokens: int, mode: Mode = Mode.EXACT, endpoint: Endpoint = POD) -> Callable[[], bool]:
    def check() -> bool:
        return picker.hits(CHAINS).get(endpoint, 0) == tokens and picker.mode(endpoint) is mode

    return check


def feed(publisher: Any, endpoint: Endpoint = POD) -> FeedSpec:
    return FeedSpec(endpoint, publisher.events, publisher.replay)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_events_reach_the_pickers_mirror(
    picker: RedisState, ingest: IngestProcess, publisher: Any, store: Any, remove: Any, eventually: Any
) -> None:
    pod = publisher()
    pod.publish(store([1, 2], None, IDS[:4]))
    ingest.follow([feed(pod)])
    await eventually(knows(picker, 4))
    pod.publish(store([3, 4], 2, IDS[4:8]))
    await eventually(knows(picker, 8))
    pod.publish(remove(4))
    await eventually(knows(picker, 6))
    await eventually(lambda: [stats.blocks for stats in ingest.stats()] == [3])
    assert ingest.degraded is None


async def test_media_with_a_weight_are_followed_by_both_sides(
    store_server: Valkey, publisher: Any, store: Any, eventually: Any
) -> None:
    events = Events(media={"cpu": 0.5})
    server = parse_url(store_server.url.replace("://", "://:hush@"))
    picker = RedisState(server, "pool", ReplicaId("picker"), ingests=False, medium_weights=events.medium_weights)
    options = msgspec.structs.replace(settings(store_server), media=tuple(events.medium_weights))
    ingest = IngestProcess(options)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(picker.close)
        await picker.start()
        stack.push_async_callback(ingest.close)
        await ingest.start()
        pod = publisher()
        cpu, disk = ({"block_size": 0, "medium": medium} for medium in ("CPU", "DISK"))
        pod.publish(store([1, 2, 3, 4], None, []) | cpu, store([1, 2, 3, 4], None, []) | disk)
        pod.publish(store([1, 2, 3, 4], None, IDS[:8]), {"type": "AllBlocksCleared"}, store([1, 2], None, IDS[:4]))
        ingest.follow([feed(pod)])
        await eventually(knows(picker, 6))
        await eventually(lambda: [stats.skipped_blocks for stats in ingest.stats()] == [4])


async def test_chunks_of_a_prefill_reach_the_picker_one_by_one(
    picker: RedisState, ingest: IngestProcess, publisher: Any, store: Any, eventually: Any
) -> None:
    """What tells the picker how far a prefill is: 1,250 blocks in a chunk, more than one call to the store takes."""
    arrived: list[int] = []
    picker.on_stored(lambda endpoint, keys: arrived.append(len(keys)))
    pod = publisher()
    ingest.follow([feed(pod)])
    await eventually(knows(picker, 0))
    for chunk in range(3):
        hashes = range(1 + 1250 * chunk, 1 + 1250 * (chunk + 1))
        pod.publish(store(list(hashes), hashes[0] - 1 or None, [chunk % 2] * 2500))
        await eventually(lambda wanted=1250 * (chunk + 1): sum(arrived) == wanted)


async def test_a_killed_process_is_replaced_and_catches_up(
    picker: RedisState, ingest: IngestProcess, publisher: Any, store: Any, remove: Any, eventually: Any
) -> None:
    pod = publisher()
    ingest.follow([feed(pod)])
    pod.publish(store([1, 2], None, IDS[:4]), store([1], None, IDS[:2]))  # two copies of the first
    await eventually(knows(picker, 4))
    killed = ingest.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    pod.publish(store([3], 2, IDS[4:6]))
    assert picker.hits(CHAINS)[POD] >= 4  # the index lives in the store
    await eventually(knows(picker, 6))
    pod.publish(remove(1), store([4], 3, IDS[6:8]))
    await eventually(knows(picker, 8))  # the copies are counted again, from the replay
    assert ingest.restarts == 1
    assert ingest.pid != killed


async def test_a_store_that_lost_its_data_is_told_everything_again(
    store_server: Valkey,
    picker: RedisState,
    ingest: IngestProcess,
    publisher: Any,
    store: Any,
    remove: Any,
    eventually: Any,
) -> None:
    pod = publisher()
    ingest.follow([feed(pod)])
    pod.publish(store([1, 2, 3], None, IDS[:6]))
    await eventually(knows(picker, 6))
    await store_server.kill()
    pod.publish(remove(3))
    await store_server.start()
    await eventually(knows(picker, 4))
    pod.publish(store([3, 4], 2, IDS[4:8]))
    await eventually(knows(picker, 8))


async def test_it_ends_with_the_picker_that_is_killed(store_server: Valkey, eventually: Any) -> None:
    script = (
        "import asyncio, sys, msgspec\n"
        "from multipick_epp.events.process import IngestProcess\n"
        "from multipick_epp.events.child import IngestOptions\n"
        "async def main():\n"
        "    ingest = IngestProcess(msgspec.json.decode(sys.stdin.readline(), type=IngestOptions))\n"
        "    await ingest.start()\n"
        "    while not (ingest.pid and ingest.degraded is None): await asyncio.sleep(0.02)\n"
        "    print(ingest.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=pipe, stdout=pipe)
    try:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(msgspec.json.encode(settings(store_server)) + b"\n")
        child = int(await parent.stdout.readline())
        assert not gone(child)
        assert b"hush" not in command_line(child)
    finally:
        parent.kill()
        await parent.wait()
    await eventually(lambda: gone(child))


async def test_close_ends_it(ingest: IngestProcess, eventually: Any) -> None:
    await eventually(lambda: ingest.pid is not None and ingest.degraded is None)
    pid = ingest.pid
    assert pid is not None
    await ingest.close()
    assert gone(pid)


class Replica:
    """An ingest with a lease of its own."""

    def __init__(self, name: str, url: str) -> None:
        self.index = RedisState(parse_url(url), "pool", ReplicaId(name), picks=False)
        self.ingest = Ingest(self.index, lambda lora: root_key(b"secret", "model", lora), Ports())

    async def start(self, feeds: list[FeedSpec]) -> None:
        await self.index.start()
        await self.ingest.start()
        self.ingest.follow(feeds)

    async def close(self) -> None:
        await self.ingest.close()
        await self.index.close()

    @property
    def owns(self) -> set[Endpoint]:
        return {stats.endpoint for stats in self.ingest.stats()}


async def test_two_replicas_share_the_endpoints_and_one_takes_over_what_the_other_leaves(
    store_server: Valkey, picker: RedisState, publisher: Any, store: Any, eventually: Any
) -> None:
    pods = {Endpoint(f"127.0.0.1:{port}"): publisher() for port in range(1, 9)}
    for pod in pods.values():
        pod.publish(store([1, 2], None, IDS[:4]))
    a, b = (Replica(name, store_server.url.replace("://", "://:hush@")) for name in "ab")
    async with AsyncExitStack() as stack:
        for replica in (a, b):
            stack.push_async_callback(replica.close)
            await replica.start([feed(pod, endpoint) for endpoint, pod in pods.items()])
        await eventually(lambda: a.owns and b.owns and sorted([*a.owns, *b.owns]) == sorted(pods))
        for endpoint in pods:
            await eventually(knows(picker, 4, endpoint=endpoint))
        left = a.owns
        await a.close()
        await eventually(lambda: b.owns == set(pods))
        for pod in pods.values():
            pod.publish(store([3], 2, IDS[4:6]))
        for endpoint in left:
            await eventually(knows(picker, 6, endpoint=endpoint))
