"""A real ZMQ publisher that numbers, keeps and replays its batches as vLLM's does; and what waits for conditions."""

import asyncio
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zmq

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

END = b"\xff" * 8


class Publisher:
    """vLLM's publisher thread: PUB and replay ROUTER, bound; `kept` batches can be replayed."""

    def __init__(
        self,
        port: int = 0,
        replay_port: int | None = 0,
        kept: int = 10_000,
        topic_in_replay: bool = True,
        replay_queue: int = 0,  # batches; 0: without end
    ) -> None:
        self.published = 0
        self.deaf = False  # it does not look at its replay socket
        self.replays = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=kept)
        self._topic_in_replay = topic_in_replay
        self._context = zmq.Context()
        self._pub = self._context.socket(zmq.XPUB)  # a PUB that can be asked for its subscribers
        self._subscribed = False
        self._pub.setsockopt(zmq.SNDHWM, 0)
        self.port = self._bind(self._pub, port)
        self._router: zmq.Socket[bytes] | None = None
        if replay_port is not None:
            self._router = self._context.socket(zmq.ROUTER)
            self._router.setsockopt(zmq.SNDHWM, replay_queue)
            self.replay_port = self._bind(self._router, replay_port)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def events(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def replay(self) -> str | None:
        return f"tcp://127.0.0.1:{self.replay_port}" if self._router else None

    def publish(self, *events: Any, lost: bool = False) -> None:
        """One batch; a lost one is kept for replays, but never sent."""
        payload = msgspec.msgpack.encode([time.time(), list(events), 0])
        with self._lock:
            seq, self.published = self.published, self.published + 1
            self._kept.append((seq, payload))
            if not lost:
                self._pub.send_multipart([b"kv@pod@model", seq.to_bytes(8, "big"), payload])

    def subscribed(self) -> bool:
        """Somebody's subscription has arrived: what is published now reaches him. Connected is not yet subscribed."""
        with self._lock:
            self._subscribed |= bool(self._pub.poll(0))
        return self._subscribed

    def stop(self) -> None:
        """As a killed process: its sockets are gone, what was under way with them."""
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    @staticmethod
    def _bind(socket: "zmq.Socket[bytes]", port: int) -> int:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        return int(bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rpartition(b":")[2])

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._router is None or self.deaf:
                self._stop.wait(0.02)
            elif self._router.poll(20):
                client, _, start = self._router.recv_multipart()
                with self._lock:
                    kept = [(seq, payload) for seq, payload in self._kept if seq >= int.from_bytes(start, "big")]
                    self.replays += 1
                topic = [b"topic"] * self._topic_in_replay
                for seq, payload in kept:
                    self._router.send_multipart([client, b"", *topic, seq.to_bytes(8, "big"), payload])
                self._router.send_multipart([client, b"", *topic, END, b""])


Publish = Callable[..., Publisher]


@pytest.fixture
def publisher() -> Iterator[Publish]:
    """Starts publishers, and stops them all in the end."""
    started: list[Publisher] = []

    def start(**options: Any) -> Publisher:
        started.append(Publisher(**options))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def stored(hashes: Sequence[int], parent: int | None, ids: Sequence[int], **fields: Any) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes),
        "parent_block_hash": parent,
        "token_ids": list(ids),
        "block_size": len(ids) // len(hashes),
        **fields,
    }


def removed(*hashes: int) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU"}


async def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for what must become true; fails if it doesn't."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def eventually() -> Any:
    return until


@pytest.fixture
def store() -> Any:
    return stored


@pytest.fixture
def remove() -> Any:
    return removed


@pytest.fixture
def flooding() -> Iterator[Callable[..., str]]:
    """Starts publishers as processes; each has a pipe, says its port over it, and ends at a word from there."""
    spawn = multiprocessing.get_context("spawn")
    running: list[tuple[Connection, Any]] = []

    def start(flood: Callable[..., None], *arguments: object) -> str:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=flood, args=(theirs, *arguments), daemon=True)
        process.start()
        running.append((ours, process))
        return f"tcp://127.0.0.1:{ours.recv()}"

    yield start
    for ours, process in running:
        ours.send("end")
        process.join()
