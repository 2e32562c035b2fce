"""The ZMQ side of KV events: live batches on a PUB socket, the last ones again on request on a ROUTER socket.

Frames as vLLM has them: live (topic, sequence number as 8 bytes big-endian, payload); a replay request is an empty
frame and a first number, its answer that batch and all later ones, closed by the number ff…ff with an empty payload.
"""

import asyncio
import time
from collections import deque
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
        self._pub = zmq.Socket(self._context, zmq.PUB)
        self._pub.set_hwm(HIGH_WATER_MARK)
        self._pub.linger = LINGER_MS
        self._pub.bind(f"tcp://{host}:{port or '*'}")
        self.endpoint = _any_address(self._pub)
        self.replay_endpoint: str | None = None
        self._replays: asyncio.Task[None] | None = None
        if replay_port is not None:
            router = self._context.socket(zmq.ROUTER)
            router.set_hwm(0)  # with the default, a slow reader loses batches and the end marker
            router.linger = 0
            router.maxmsgsize = MAX_REQUEST_BYTES
            router.bind(f"tcp://{host}:{replay_port or '*'}")
            self.replay_endpoint = _any_address(router)
            self._replays = asyncio.create_task(self._serve_replays(router))

    def publish(self, events: list[Any]) -> None:
        """Send one step's events as the next batch."""
        sequence = self._next.to_bytes(8, "big")
        payload = self._encoder.encode([time.time(), events, self._rank])
        self._next += 1
        self._buffer.append((sequence, payload))
        self._pub.send_multipart((self._topic, sequence, payload), zmq.NOBLOCK)

    async def close(self) -> None:
        """Stop replays and close the sockets."""
        if self._replays is not None:
            self._replays.cancel()
            await asyncio.wait([self._replays])
        self._pub.close()
        self._context.term()

    async def _serve_replays(self, router: zmq.asyncio.Socket) -> None:
        try:
            while True:
                client, *request = await router.recv_multipart()
                if len(request) != 2 or len(request[1]) != 8:
                    continue
                first = int.from_bytes(request[1], "big")
                skipped = max(0, first - (self._next - len(self._buffer)))
                for sequence, payload in list(self._buffer)[skipped:]:
                    await router.send_multipart([client, b"", *self._replayed_topic, sequence, payload])
                marker = [b""] if self._replayed_topic else []
                await router.send_multipart([client, b"", *marker, *END])
        finally:
            router.close()


def _any_address(socket: zmq.Socket[Any]) -> str:
    """The bound endpoint as vLLM prints it: a client puts the pod's address where the star is."""
    port = socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    return f"tcp://*:{port}"
