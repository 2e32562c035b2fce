"""A pod that sends the parts of a message without an end fills no memory, and costs no other pod anything."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.events.discover import FeedSpec, Ports
from multipick_epp.events.feed_stats import FeedStats
from multipick_epp.events.ingest import Ingest
from multipick_epp.state.memory import MemoryState
from multipick_epp.types import BlockKey, Endpoint, Mode

GOOD, BAD = Endpoint("127.0.0.1:1"), Endpoint("127.0.0.1:2")
SIZE = 2
MORE, COMMAND, LONG = 1, 4, 2  # flags of a frame in ZMTP 3
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + b"\x00" + bytes(31)
MEMORY_BYTES = 1 << 30
"""A flood sends so much in a second or two, and of small parts ZMQ takes 30 times as much."""


def root(lora: str | None) -> BlockKey:
    return root_key(b"secret", "model", lora)


def part(size: int) -> bytes:
    """A frame that says that another one follows."""
    return (
        bytes([MORE | LONG]) + size.to_bytes(8, "big") + bytes(size)
        if size > 255
        else bytes([MORE, size]) + bytes(size)
    )


def ready(kind: bytes) -> bytes:
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return bytes([COMMAND, len(body)]) + body


def flood(pipe: Connection, kind: bytes, size: int) -> None:
    """A process that speaks ZMQ's protocol by hand: parts without an end on each connection, until told to end."""
    server = socket.create_server(("127.0.0.1", 0))
    parts = part(size) * max(1, (1 << 20) // (size + 2))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(GREETING + ready(kind))
            came = b""
            while b"READY" not in came:
                came += connection.recv(4096)
            while True:
                connection.sendall(parts)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    pipe.send(server.getsockname()[1])
    pipe.recv()


@pytest.fixture
async def picker() -> AsyncIterator[tuple[Ingest, MemoryState]]:
    state = MemoryState()
    ingest = Ingest(state, root, Ports())
    await ingest.start()
    yield ingest, state
    await ingest.close()


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def stats(ingest: Ingest, endpoint: Endpoint) -> FeedStats:
    (found,) = (each for each in ingest.stats() if each.endpoint == endpoint)
    return found


@pytest.mark.parametrize("size", [0, 1, 100_000, 4 << 20])
@pytest.mark.parametrize("kind", [b"PUB", b"ROUTER"])
async def test_it_ends_that_subscription_alone(
    picker: tuple[Ingest, MemoryState],
    publisher: Any,
    flooding: Any,
    store: Any,
    eventually: Any,
    kind: bytes,
    size: int,
) -> None:
    ingest, state = picker
    good = publisher()
    sick = await asyncio.to_thread(flooding, flood, kind, size)
    live = sick if kind == b"PUB" else publisher(replay_port=None).events
    replay = sick if kind == b"ROUTER" else None
    before = memory_bytes()
    ingest.follow([FeedSpec(GOOD, good.events, good.replay), FeedSpec(BAD, live, replay)])
    ids = list(range(1, 22))
    chains = Chains(len(ids), {SIZE: block_keys(root(None), ids, SIZE)})

    def knows(tokens: int) -> bool:
        return state.hits(chains).get(GOOD) == tokens

    await eventually(lambda: len(ingest.stats()) == 2 and "bytes, whose end" in stats(ingest, BAD).why)
    for number in range(1, 11):
        good.publish(store([number], number - 1 or None, ids[2 * number - 2 : 2 * number]))
        await eventually(partial(knows, 2 * number))
        assert state.mode(GOOD) is Mode.EXACT
        assert memory_bytes() - before < MEMORY_BYTES
        await asyncio.sleep(0.1)
    assert stats(ingest, GOOD).gaps == 0


async def test_large_messages_that_end_are_no_floods(
    picker: tuple[Ingest, MemoryState], publisher: Any, eventually: Any
) -> None:
    """Of as many bytes together, at a few looks."""
    ingest, _ = picker
    pod = publisher()
    ingest.follow([FeedSpec(GOOD, pod.events, pod.replay)])
    await eventually(pod.subscribed)
    for number in range(40):
        pod.publish({"type": "Unknown", "text": bytes(3 << 20)})
        await eventually(lambda number=number: stats(ingest, GOOD).batches > number)
    assert stats(ingest, GOOD).why == ""
    assert stats(ingest, GOOD).gaps == 0


async def test_a_pod_that_broke_zmqs_protocol_is_followed_once_it_keeps_it(
    picker: tuple[Ingest, MemoryState], publisher: Any, store: Any, eventually: Any
) -> None:
    """ZMQ by itself never connects to it again."""
    ingest, _ = picker

    async def break_it(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING + part(1))  # data before the handshake

    server = await asyncio.start_server(break_it, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ingest.follow([FeedSpec(BAD, f"tcp://127.0.0.1:{port}", None)])
    await eventually(lambda: bool(ingest.stats()) and "protocol" in stats(ingest, BAD).why)
    server.close()
    good = publisher(port=port, replay_port=None)
    await eventually(good.subscribed)
    good.publish(store([1], None, [1, 2]))
    await eventually(lambda: stats(ingest, BAD).blocks == 1)
    assert stats(ingest, BAD).why == ""


@pytest.mark.parametrize("replay_port", [0, None])
async def test_a_pod_that_sent_a_frame_that_is_too_large_is_followed_on(
    picker: tuple[Ingest, MemoryState], publisher: Any, store: Any, eventually: Any, replay_port: int | None
) -> None:
    ingest, _ = picker
    pod = publisher(replay_port=replay_port, kept=1)
    ingest.follow([FeedSpec(BAD, pod.events, pod.replay)])
    await eventually(pod.subscribed)
    pod.publish({"type": "Unknown", "text": bytes(5 << 20)})
    await eventually(lambda: "frame" in stats(ingest, BAD).why)
    async with asyncio.timeout(120):
        while not stats(ingest, BAD).blocks:  # what comes before it is subscribed again is lost
            pod.publish(store([1], None, [1, 2]))
            await asyncio.sleep(0.05)
    assert stats(ingest, BAD).why == ""
