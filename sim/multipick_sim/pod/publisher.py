"""The ZMQ side of KV events: live batches on a PUB socket, the last ones again on request on a ROUTER socket.

Frames as vLLM has them: live (topic, sequence number as 8 bytes big-endian, payload); a replay request is an empty
frame and a first number, its answer that batch and all later ones, closed by the number ff…ff with an empty payload.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from multipick_sim.pod.settings import EventFormat

BUFFER_STEPS = 10_000
HIGH_WATER_MARK = 100_000  # batches that a slow subscriber may lag, as vLLM's default
MAX_REQUEST_BYTES = 1024
END = (b"\xff" * 8, b"")
LINGER_MS = 200  # a closing pod gives its last batches this long to leave
BIND_S = 5.0  # a closed socket's port is free again by then


class EventFlow(StrEnum):
    """What becomes of a live batch. It can be replayed in any case."""

    FLOWS = "flows"
    HELD = "held"  # it leaves when events flow again
    DROPPED = "dropped"
    CUT = "cut"  # nobody is connected, or can be


class Publisher:
    """One rank's events. Sequence numbers count from 0 from the start of the process."""

    def __init__(
        self, host: str, port: int, replay_port: int | None, topic: str, rank: int, format_: EventFormat
    ) -> None:
        """Binds at once, so that subscribers can connect before HTTP answers. Raises zmq.ZMQError for a port in use."""
        self._topic = topic.encode()
        self._rank = rank
        # vLLM has put the topic into replay answers since 0.26; the array form ended with 0.23.
        self._replayed_topic = [self._topic] if format_ is EventFormat.MAP else []
        self._buffer: deque[tuple[bytes, bytes]] = deque(maxlen=BUFFER_STEPS)
        self._next = 0
        self._context = zmq.asyncio.Context()
        self._encoder = msgspec.msgpack.Encoder()
        self._host = host
        self._pub = self._bound(port)
        self.endpoint = _any_address(self._pub)
        self.replays = True  # whether replay requests are answered
        self._flow = EventFlow.FLOWS
        self._held: list[tuple[bytes, bytes, bytes]] = []
        self.replay_endpoint: str | None = None
        self._replays: asyncio.Task[None] | None = None
        if replay_port is not None:
            router = self._context.socket(zmq.ROUTER)
            router.set_hwm(0)  # with the default, a slow reader loses batches and the end marker
            router.linger = 0
            router.maxmsgsize = MAX_REQUEST_BYTES
            _bind(router, host, replay_port)
            self.replay_endpoint = _any_address(router)
            self._replays = asyncio.create_task(self._serve_replays(router))

    def publish(self, events: list[Any]) -> None:
        """Send one step's events as the next batch."""
        sequence = self._next.to_bytes(8, "big")
        payload = self._encoder.encode([time.time(), events, self._rank])
        self._next += 1
        self._buffer.append((sequence, payload))
        if self._flow is EventFlow.FLOWS:
            self._pub.send_multipart((self._topic, sequence, payload), zmq.NOBLOCK)
        elif self._flow is EventFlow.HELD:
            self._held.append((self._topic, sequence, payload))

    async def let(self, flow: EventFlow) -> None:
        """Live batches fare so from now on; those that were held leave, unless they are still. Raises zmq.ZMQError."""
        if flow is EventFlow.CUT and self._flow is not EventFlow.CUT:
            self._pub.close(linger=0)
        elif self._flow is EventFlow.CUT and flow is not EventFlow.CUT:
            self._pub = await _bound_in_time(lambda: self._bound(int(self.endpoint.rpartition(":")[2])))
        self._flow = flow
        if flow is not EventFlow.HELD:
            held, self._held = self._held, []
            for frames in held if flow is EventFlow.FLOWS else ():
                self._pub.send_multipart(frames, zmq.NOBLOCK)

    def keep(self, batches: int) -> None:
        """So many of the last batches can be replayed from now on."""
        self._buffer = deque(self._buffer, maxlen=batches)

    async def close(self) -> None:
        """Stop replays and close the sockets."""
        if self._replays is not None:
            self._replays.cancel()
            await asyncio.wait([self._replays])
        self._pub.close()
        self._context.term()

    def _bound(self, port: int) -> "zmq.Socket[bytes]":
        pub = zmq.Socket(self._context, zmq.PUB)
        pub.set_hwm(HIGH_WATER_MARK)
        pub.linger = LINGER_MS
        try:
            _bind(pub, self._host, port)
        except zmq.ZMQError:
            pub.close()
            raise
        return pub

    async def _serve_replays(self, router: zmq.asyncio.Socket) -> None:
        try:
            while True:
                client, *request = await router.recv_multipart()
                if not self.replays or len(request) != 2 or len(request[1]) != 8:
                    continue
                first = int.from_bytes(request[1], "big")
                skipped = max(0, first - (self._next - len(self._buffer)))
                for sequence, payload in list(self._buffer)[skipped:]:
                    await router.send_multipart([client, b"", *self._replayed_topic, sequence, payload])
                marker = [b""] if self._replayed_topic else []
                await router.send_multipart([client, b"", *marker, *END])
        finally:
            router.close()


async def _bound_in_time(bind: Callable[[], "zmq.Socket[bytes]"]) -> "zmq.Socket[bytes]":
    """Sockets close in the background, and keep their port meanwhile."""
    deadline = time.monotonic() + BIND_S
    while True:
        try:
            return bind()
        except zmq.ZMQError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.01)


def _bind(socket: zmq.Socket[Any], host: str, port: int) -> None:
    """Port 0: any free one. Raises zmq.ZMQError."""
    if ":" in host:
        socket.setsockopt(zmq.IPV6, 1)
        host = f"[{host}]"
    socket.bind(f"tcp://{host}:{port or '*'}")


def _any_address(socket: zmq.Socket[Any]) -> str:
    """The bound endpoint as vLLM prints it: a client puts the pod's address where the star is."""
    port = socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    return f"tcp://*:{port}"
