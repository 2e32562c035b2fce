"""Real pods for the tests of this folder: processes on free ports, gone when the test ends."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import zmq
import zmq.asyncio

Json = dict[str, Any]
PATIENCE_S = 60.0
SMALL = ("--num-gpu-blocks", "65", "--max-model-len", "512", "--max-num-batched-tokens", "256", "--max-num-seqs", "16")


def readable(text: str) -> Any:
    return json.loads(text) if text.startswith(("{", "[")) else text


@dataclass
class Client:
    """Talks to a pod."""

    url: str
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body, headers=headers) as response:
            return response.status, readable(await response.text())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as response:
            return response.status, readable(await response.text())

    async def complete(self, prompt: Any, max_tokens: int = 1, **fields: Any) -> Json:
        status, answer = await self.post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, **fields})
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def chat(self, messages: list[Json], **fields: Any) -> Json:
        status, answer = await self.post("/v1/chat/completions", {"messages": messages, **fields})
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def stream(self, path: str, body: Json) -> list[Json]:
        """All chunks of an answer that ended well."""
        async with self.session.post(self.url + path, json=body | {"stream": True}) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = (await response.text()).split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    async def gauge(self, name: str) -> float:
        _, text = await self.get("/metrics")
        found = re.search(rf"^vllm:{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])

    async def sources(self) -> dict[str, Json]:
        _, sources = await self.get("/kv_event_sources")
        assert isinstance(sources, dict)
        return sources


@dataclass
class RunningPod(Client):
    """A pod of one test's own."""

    process: asyncio.subprocess.Process


@dataclass
class Subscriber:
    """A rank's live batches: (sequence number, payload)."""

    socket: zmq.asyncio.Socket
    batches: list[tuple[int, bytes]] = field(default_factory=list)

    async def receive(self, timeout_s: float = PATIENCE_S) -> tuple[int, bytes]:
        topic, number, payload = await asyncio.wait_for(self.socket.recv_multipart(), timeout_s)
        assert topic == b"kv"
        self.batches.append((int.from_bytes(number, "big"), payload))
        return self.batches[-1]

    async def receive_until(self, last: int) -> None:
        while self.batches[-1][0] < last:
            await self.receive()

    async def join(self, pod: Client, **headers: str) -> None:
        """A subscription takes a moment to reach the publisher: ask for events until some come, and take them all."""
        number = 4999
        while not self.batches:
            number += 1
            body = {"prompt": [number] * 16, "max_tokens": 1}
            await pod.post("/v1/completions", body, **headers)
            with suppress(TimeoutError):
                await self.receive(0.05)
        while decode(self.batches[-1][1])[1][-1]["token_ids"] != [number] * 16:  # what was asked since the first came
            await self.receive()


def decode(payload: bytes) -> list[Any]:
    """A batch: [ts, events, rank]."""
    batch = msgspec.msgpack.decode(payload)
    assert isinstance(batch, list)
    return batch


async def replay(endpoint: str, first: int) -> list[tuple[int, bytes]]:
    """All batches from `first` on, as a picker asks for them."""
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.rcvhwm = 0
        dealer.linger = 0
        dealer.connect(endpoint.replace("*", "127.0.0.1"))
        await dealer.send_multipart([b"", first.to_bytes(8, "big")])
        batches: list[tuple[int, bytes]] = []
        while True:
            frames = await asyncio.wait_for(dealer.recv_multipart(), PATIENCE_S)
            if frames[-2] == b"\xff" * 8:
                assert frames[-1] == b""
                return batches
            batches.append((int.from_bytes(frames[-2], "big"), frames[-1]))


@dataclass(frozen=True)
class Tools:
    """What tests need besides fixtures: nothing can be imported from here."""

    small = SMALL
    decode = staticmethod(decode)
    replay = staticmethod(replay)


Start = Callable[..., Coroutine[Any, Any, RunningPod]]
Subscribe = Callable[[str], Subscriber]
EVENTS = ("--events-port", "0", "--replay-port", "0", "--event-topic", "kv")
FAST = ("--speed", "20")


COMMAND = (str(Path(sys.executable).with_name("multipick")), "sim", "serve", "--port", "0")


def announced(line: str) -> str:
    """The address in the line that a pod prints when it serves."""
    address = re.search(r"http://\S+:\d+", line)
    assert address, line
    return address[0]


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[RunningPod]:
    process = await asyncio.create_subprocess_exec(*COMMAND, *flags, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = announced((await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode())
        async with aiohttp.ClientSession() as session:
            yield RunningPod(url, session, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start("--flag", …)` gives a pod in dev mode with KV events, 20 times as fast as its GPU."""
    async with AsyncExitStack() as pods:

        async def start_one(*flags: str) -> RunningPod:
            return await pods.enter_async_context(running(*EVENTS, *FAST, "--dev", *flags))

        yield start_one


@pytest.fixture
async def plain_pod() -> AsyncIterator[RunningPod]:
    """A pod without KV events, outside dev mode."""
    async with running(*FAST) as pod:
        yield pod


@pytest.fixture(scope="module")
def shared_url() -> Iterator[str]:
    command = [*COMMAND, *FAST, "--max-model-len", "512"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield announced(process.stdout.readline())
        process.kill()


@pytest.fixture
async def shared_pod(shared_url: str) -> AsyncIterator[Client]:
    """One pod for all tests of a file that leave nothing behind but their own prompts in its cache."""
    async with aiohttp.ClientSession() as session:
        yield Client(shared_url, session)


@pytest.fixture
def subscribe() -> Iterator[Subscribe]:
    """`subscribe(endpoint)` follows one rank's events."""
    context = zmq.asyncio.Context()

    def follow(endpoint: str) -> Subscriber:
        socket = context.socket(zmq.SUB)
        socket.rcvhwm = 0
        socket.subscribe("")
        socket.connect(endpoint.replace("*", "127.0.0.1"))
        return Subscriber(socket)

    yield follow
    context.destroy(linger=0)


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def tiny_model() -> str:
    """The folder of the model that the recordings were made with."""
    return str(Path(__file__).parents[2] / "fixtures" / "tiny-model")
