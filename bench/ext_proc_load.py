"""The load of `ext_proc.py`: model servers that answer at once, and clients that ask for chats which grow."""

import asyncio
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from multipick_sim.texts import fixed_text

CONVERSATIONS = 8
CONNECTIONS = 32
EVENTS, EVENT_BYTES, EVENT_EVERY_S = 100, 229, 0.004
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"vllm","max_model_len":131072}]}'
METRICS = b'vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:cache_config_info{block_size="16"} 1\n'


class Endpoint(asyncio.Protocol):
    """A model server that answers at once: metrics, its model, a short JSON text, or events."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        if whole(self.data):
            start, self.data = self.data[:64], b""
            if start.startswith(b"GET /metrics"):
                self.transport.write(answer(METRICS))
            elif start.startswith(b"GET /v1/models"):
                self.transport.write(answer(MODELS))
            elif b"events" in start:
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                self.transport.write(b"transfer-encoding: chunked\r\n\r\n")
                self.event(0)
            else:
                self.transport.write(answer(b'{"choices":[{"message":{"content":"' + b"x" * 200 + b'"}}]}'))

    def event(self, number: int) -> None:
        if number == EVENTS:
            self.transport.write(b"0\r\n\r\n")
        elif not self.transport.is_closing():
            event = b"data: " + b"x" * (EVENT_BYTES - 8) + b"\n\n"
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            asyncio.get_running_loop().call_later(EVENT_EVERY_S, self.event, number + 1)


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    done: "asyncio.Future[float] | None" = None  # while it is asked

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[float]":
        """Resolves at the end of the answer, to the time of its first byte."""
        self.data, self.first = b"", 0.0
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.first = self.first or time.perf_counter()
        self.data += data
        if whole(self.data) and self.done is not None:
            if self.data.startswith(b"HTTP/1.1 200"):
                self.done.set_result(self.first)
            else:
                self.done.set_exception(RuntimeError(f"a request failed: {self.data[:500]!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(RuntimeError(f"connection lost: {error}"))


def whole(data: bytes) -> bool:
    """A head and all of its body; enough for the messages here."""
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if length:
        return len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n") if b"chunked" in head else head != data


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def requests(size: int, events: bool) -> Iterator[bytes]:
    """Endless chats of `size` bytes or so, whose last message is new each time."""
    path = b"/v1/chat/completions?" + (b"events" if events else b"json")
    begun = [begin(number, size - 400, events) for number in range(CONVERSATIONS)]
    for number in itertools.count():
        body = begun[number % CONVERSATIONS] + fixed_text(1000 + number, 20).encode() + b'"}]}'
        head = b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n" % path
        yield head + b"authorization: Bearer x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def begin(conversation: int, size: int, events: bool) -> bytes:
    """A chat's body up to the text of its last message."""
    roles = itertools.cycle(("system", "user", "assistant"))
    history = fixed_text(conversation, size // 6)
    turns = [history[at : at + 1200] for at in range(0, len(history), 1200)]
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    body = json.dumps({"model": "bench", "max_tokens": 100, "stream": events, "messages": messages})
    return body.encode()[:-2] + b', {"role": "user", "content": "'


async def as_fast_as_it_goes(url: str, load: Iterator[bytes], seconds: float) -> int:
    """How many requests were answered."""
    until = time.perf_counter() + seconds

    async def one_after_the_other() -> int:
        client, count = await connect(url), 0
        while time.perf_counter() < until:
            await client.ask(next(load))
            count += 1
        client.transport.close()
        return count

    return sum(await asyncio.gather(*(one_after_the_other() for _ in range(CONNECTIONS))))


async def at_a_rate(url: str, load: Iterator[bytes], rate: float, seconds: float) -> list[float]:
    """Seconds to the first byte of each answer, from when its request was due."""
    idle: deque[Client] = deque()
    loop, start = asyncio.get_running_loop(), time.perf_counter()

    async def one(due: float) -> float:
        request = next(load)
        await asyncio.sleep(due - time.perf_counter())
        client = idle.pop() if idle else await connect(url)
        first = await client.ask(request)
        idle.append(client)
        return first - due

    dues = [start + number / rate for number in range(int(rate * seconds))]
    tasks = []
    for due in dues:  # made shortly before they are due: building a chat takes time too
        await asyncio.sleep(due - 0.02 - time.perf_counter())
        tasks.append(loop.create_task(one(due)))
    latencies = await asyncio.gather(*tasks)
    for client in idle:
        client.transport.close()
    return sorted(latencies)


async def connect(url: str) -> Client:
    host, _, port = url.removeprefix("http://").partition(":")
    _, client = await asyncio.get_running_loop().create_connection(Client, host, int(port))
    return client
