"""What the ingest of KV events costs on one core, by stage. Bar: >= 50,000 block operations/s, end to end.

One engine's batches: `prefill` stores 32 blocks and removes as many, one event a removal as vLLM sends them; `decode`
stores one block and removes one. Stages are timed apart in this process; `over ZMQ` is a publisher in another process
and everything behind it, from the socket to the index in memory, by the CPU time of this process.

    python bench/ingest.py [--batches 4000] [--block-size 16] [--json FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import msgspec
import uvloop
import zmq
from multipick_epp.blocks import root_key
from multipick_epp.events.decode import Batch, decode
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.ingest import Ingest
from multipick_epp.events.tracker import Tracker
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Delta
from multipick_epp.types import BlockKey, Endpoint

BAR = 50_000
POOL_BLOCKS = 20_000
FLUSH_BATCHES = 8  # that share one flush
POD = Endpoint("10.0.0.1:8000")


@dataclass(frozen=True)
class Row:
    """Block operations a second of one core."""

    shape: str
    operations: int
    decode: float
    track: float
    index: float
    together: float
    over_zmq: float


def root(lora: str | None) -> BlockKey:
    return root_key(b"secret", "model", lora)


def payloads(batches: int, blocks: int, block_size: int) -> Iterator[tuple[bytes, int]]:
    """An engine's messages once its pool is full, each with the operations in it; first, what fills the pool."""
    rng = Random(1)
    live: list[int] = []
    tokens = [rng.randrange(1000, 150_000) for _ in range(block_size * blocks * 8)]
    for batch in range(POOL_BLOCKS // blocks + batches):
        hashes = [rng.getrandbits(64) for _ in range(blocks)]
        out, live = (live[:blocks], live[blocks:]) if len(live) >= POOL_BLOCKS else ([], live)
        start = batch % (7 * block_size * blocks)
        stored = {
            "type": "BlockStored",
            "block_hashes": hashes,
            "parent_block_hash": live[-1] if live and batch % 4 else None,
            "token_ids": tokens[start : start + block_size * blocks],
            "block_size": block_size,
            "lora_id": None,
            "medium": "GPU",
            "lora_name": None,
            "extra_keys": [None] * blocks,
            "group_idx": 0,
            "kv_cache_spec_kind": "full_attention",
        }
        removed = [{"type": "BlockRemoved", "block_hashes": [gone], "medium": "GPU", "group_idx": 0} for gone in out]
        live += hashes
        yield msgspec.msgpack.encode([time.time(), [*removed, stored], 0]), len(hashes) + len(out)


async def measure(shape: str, batches: int, blocks: int, block_size: int) -> Row:
    messages = list(payloads(batches, blocks, block_size))
    operations = sum(count for _, count in messages)

    start = time.process_time()
    decoded: list[Batch] = [decode(payload) for payload, _ in messages]
    decode_s = time.process_time() - start

    tracker, changes = Tracker(POD, root, complete=True), []
    start = time.process_time()
    for number, batch in enumerate(decoded):
        tracker.apply(batch)
        if number % FLUSH_BATCHES == 0:
            changes.append(tracker.take()[1])
    track_s = time.process_time() - start

    state = MemoryState()
    await state.take_over(POD)
    start = time.process_time()
    for number, flush in enumerate(changes):
        await state.apply([Delta(c.cache, 1, number, number, c.stored, c.removed) for c in flush])
    index_s = time.process_time() - start
    zmq_s = await over_zmq([payload for payload, _ in messages], operations)
    return Row(
        shape,
        operations,
        operations / decode_s,
        operations / track_s,
        operations / index_s,
        operations / (decode_s + track_s + index_s),
        operations / zmq_s,
    )


async def over_zmq(messages: list[bytes], operations: int) -> float:
    """CPU seconds of this process from the first message on the socket to the last in the index."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    publisher = multiprocessing.get_context("spawn").Process(target=publish, args=(theirs, messages))
    publisher.start()
    port = await asyncio.to_thread(ours.recv)
    ingest = Ingest(MemoryState(), root, Ports())
    await ingest.start()
    ingest.follow([FeedSpec(POD, f"tcp://127.0.0.1:{port}")])
    while not any(stats.connected for stats in ingest.stats()):
        await asyncio.sleep(0.01)
    start = time.process_time()
    ours.send("go")
    while sum(stats.operations for stats in ingest.stats()) < operations or ingest.stats()[0].lag_s == 0.0:
        await asyncio.sleep(0.02)
    spent = time.process_time() - start
    (stats,) = ingest.stats()
    assert stats.gaps == stats.undecodable == 0, stats
    await ingest.close()
    ours.send("end")
    publisher.join()
    return spent


def publish(ours: Connection, messages: list[bytes]) -> None:
    """The publisher's process: everything as fast as the socket takes it."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    ours.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    ours.recv()
    time.sleep(0.2)  # for the subscription to arrive
    for seq, payload in enumerate(messages):
        socket.send_multipart([b"", seq.to_bytes(8, "big"), payload])
    ours.recv()
    context.destroy(linger=0)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=4000)
    parser.add_argument("--block-size", type=int, default=16, help="tokens")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [
        await measure("prefill: 32 stored, 32 removed", options.batches, 32, options.block_size),
        await measure("decode: 1 stored, 1 removed", 4 * options.batches, 1, options.block_size),
    ]
    print(f"{platform.machine()}, Python {platform.python_version()}: block operations a second of one core")
    print(f"{'batches of':<32} {'decode':>9} {'track':>9} {'index':>9} {'together':>9} {'over ZMQ':>9}  of the bar")
    for row in rows:
        figures = (row.decode, row.track, row.index, row.together, row.over_zmq)
        print(
            f"{row.shape:<32} " + " ".join(f"{figure:>9,.0f}" for figure in figures) + f"  {row.over_zmq / BAR:.1f} x"
        )
    if options.json:
        options.json.write_text(json.dumps({"bar": BAR, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    uvloop.run(main())
