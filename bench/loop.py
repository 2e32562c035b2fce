"""How long one request holds the event loop that all requests share: the longest stall, by kind of body. Bar: 5 ms.

Each body is as large as is read (4 MB), and goes through a stream, the look for reserved fields, the parser, the
tokenizer, hashing, lookup, reserve and the expectations after it. Beside it a timer wants to fire every half
millisecond; the longest it had to wait beyond that is the stall. `less texts` is the same without a tokenizer: what is
left of it then is the tokenizer's.

    python bench/loop.py [--json FILE] [--only KIND ...]
"""

import argparse
import asyncio
import gc
import json
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import uvloop
from multipick_epp.app.app import SWITCH_S, share_threads
from multipick_epp.decision.picker import DecisionOptions, PoolPicker
from multipick_epp.decision.prompts import PromptReader
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.extproc.collected import Bounds
from multipick_epp.extproc.driver import Conversation, StreamOptions
from multipick_epp.extproc.observer import StreamMetrics
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.failures import Failures
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.proto.ext_proc_pb2 import BodySendMode, HttpBody, HttpHeaders, ProcessingRequest
from multipick_epp.requests.prompt import TokenIds, TokenSource
from multipick_epp.state.memory import MemoryState
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.tokens import Tokenizer, Untokenised
from multipick_epp.types import Endpoint, ReplicaId

ROOT = Path(__file__).parents[1]
BAR_MS = 5.0
TICK_S = 0.0005
BLOCK = 16
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def filled(before: bytes, unit: bytes, after: bytes, size: int) -> bytes:
    """`unit`s, which end in a comma, between two ends."""
    count = (size - len(before) - len(after)) // len(unit)
    return before + (unit * count)[:-1] + after


def bodies(size: int) -> Iterator[tuple[str, str, bytes]]:
    """Kinds of bodies of `size` bytes: what clients send, and what they may send to hurt."""
    words = b"The quick brown fox jumps over the lazy dog. if (a[0]) { return b; }\\n "
    message = b'{"role":"user","content":"' + words * 60 + b'"},'
    yield "chat of 4,000 characters a message", CHAT, filled(b'{"messages":[', message, b"]}", size)
    yield "one text", TEXT, b'{"prompt":"' + words * (size // len(words) - 1) + b'"}'
    yield "text, all escapes", TEXT, b'{"prompt":"' + b"\\n" * (size // 2 - 20) + b'"}'
    yield "text, all escaped quotes", TEXT, b'{"prompt":"' + b'\\"' * (size // 2 - 20) + b'"}'
    yield "text, not ASCII", TEXT, b'{"prompt":"' + "ß".encode() * (size // 2 - 20) + b'"}'
    yield "token ids", TEXT, filled(b'{"prompt":[', b"123456,", b"]}", size)
    yield "token ids of one digit", TEXT, filled(b'{"prompt":[', b"1,", b"]}", size)
    yield "many prompts of ids", TEXT, filled(b'{"prompt":[', b"[1],", b"]}", size)
    yield "1,000 prompts of ids", TEXT, filled(b'{"prompt":[', b"[" + b"1," * 2_000 + b"1],", b"]}", size)
    yield "1,000 prompts of text", TEXT, filled(b'{"prompt":[', b'"' + b"word " * 800 + b'",', b"]}", size)
    yield "many prompts of text", TEXT, filled(b'{"prompt":[', b'"a",', b"]}", size)
    yield "small messages", CHAT, filled(b'{"messages":[', b'{"role":"user","content":""},', b"]}", size)
    many = filled(b'{"messages":[', b'{"role":"user","content":"' + b"x" * 240 + b'"},', b"]}", size)
    yield "messages of 240 characters", CHAT, many
    part = b'{"type":"text","text":""},'
    yield "small parts", CHAT, filled(b'{"messages":[{"role":"user","content":[', part, b"]}]}", size)
    yield "objects", CHAT, filled(b'{"messages":[],"chat_template_kwargs":{"a":[', b"{},", b"]}}", size)
    yield "lists in an unknown field", TEXT, filled(b'{"prompt":"x","z":[', b"[],", b"]}", size)
    yield "lists in lists", CHAT, b'{"messages":[],"z":' + b"[" * (size - 20)
    yield "names", TEXT, filled(b'{"prompt":"x",', b'"a":1,', b"}", size)
    yield "spaces", TEXT, b'{"prompt":' + b" " * (size - 20) + b'"x"}'
    yield "digits", TEXT, b'{"prompt":[' + b"1" * (size - 20) + b"]}"
    yield "digits in a field", TEXT, b'{"prompt":"x","echo":' + b"1" * (size - 30) + b"}"
    handle = b'"kv_transfer_params":{"remote_host":"10.9.9.9"},'
    yield "token ids and a handle", TEXT, filled(b"{" + handle + b'"prompt":[', b"123456,", b"]}", size)
    yield "chat and a handle", CHAT, filled(b"{" + handle + b'"messages":[', message, b"]}", size)
    yield "names and a handle", TEXT, filled(b"{" + handle, b'"a":1,', b"}", size)
    yield "almost the sign of a handle", TEXT, b'{"prompt":"' + b"_transfer_param" * (size // 15 - 2) + b'"}'


class Row(NamedTuple):
    """Medians of a few requests."""

    stall_ms: float
    answer_ms: float
    by_load: str  # why the prompt was not known, where it was not


class Wire:
    """Throws away what is sent."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.answered.set()

    def end(self) -> None:
        self.answered.set()

    def pause(self) -> None:
        """Nothing more comes."""

    def resume(self) -> None:
        """Nothing was held."""


class IdsOnly:
    """An encoder that knows no text."""

    async def encode(self, source: TokenSource) -> Sequence[int] | Untokenised:
        return source.ids if isinstance(source, TokenIds) else Untokenised("no tokenizer")


async def picker(metrics: Metrics, tokenised: bool) -> tuple[PoolPicker, PromptReader, Tokenizer]:
    state, registry = MemoryState(), Registry()
    pool = [Endpoint(f"10.0.0.{number}:8000") for number in range(16)]
    registry.set([PodEndpoint(endpoint) for endpoint in pool])
    for endpoint in pool:
        registry.mark(endpoint, True)
        registry.scraped(endpoint, Gauges(waiting=0, running=0, block_size=BLOCK), Unexplained())
    tokenizer = Tokenizer.load(ROOT / "tests/fixtures/tiny-model")
    reader = PromptReader(tokenizer if tokenised else IdsOnly(), ["m"], b"", lambda: [BLOCK], Metrics().stage_seconds)
    options = DecisionOptions("lmetric", lmetric, 0.1)
    known = Failures(registry, state, lambda _: None, lambda: 0.0)
    return (
        PoolPicker(options, ReplicaId("bench"), state, registry, known, reader, metrics, Random(1)),
        reader,
        tokenizer,
    )


def messages(path: str, body: bytes) -> list[bytes]:
    first = ProcessingRequest(request_headers=HttpHeaders())
    first.protocol_config.request_body_mode = BodySendMode.FULL_DUPLEX_STREAMED
    first.request_headers.headers.headers.add(key=":path", raw_value=path.encode())
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    chunks = [ProcessingRequest(request_body=HttpBody(body=piece)) for piece in pieces]
    return [
        m.SerializeToString() for m in (first, *chunks, ProcessingRequest(request_body=HttpBody(end_of_stream=True)))
    ]


async def longest_wait(until: asyncio.Event) -> float:
    worst = 0.0
    while not until.is_set():
        started = time.perf_counter()
        await asyncio.sleep(TICK_S)
        worst = max(worst, time.perf_counter() - started - TICK_S)
    return worst


async def measure(path: str, body: bytes, tokenised: bool, repeat: int, size: int) -> Row:
    """The median of the longest stalls of a few requests, and of their time to an answer."""
    metrics = Metrics()
    stalls, times = [], []
    for _ in range(repeat):
        pool, reader, tokenizer = await picker(metrics, tokenised)  # anew, so that no cache knows the body
        gc.collect()
        wire, over = Wire(), asyncio.Event()
        probe = asyncio.create_task(longest_wait(over))
        conversation = Conversation(wire, pool, StreamMetrics(metrics), StreamOptions(Bounds(max_read_bytes=size)))
        await asyncio.sleep(0.002)
        started = time.perf_counter()
        for message in messages(path, body):
            conversation.message(message)
            await asyncio.sleep(0)
        await wire.answered.wait()
        times.append(time.perf_counter() - started)
        conversation.closed()
        await asyncio.sleep(0.2)  # work in threads goes on to its end, unheard
        over.set()
        stalls.append(await probe)
        reader.close()
        tokenizer.close()
    samples = [sample for metric in metrics.fallbacks.collect() for sample in metric.samples]
    reasons = {sample.labels["reason"] for sample in samples if "reason" in sample.labels}
    return Row(statistics.median(stalls) * 1e3, statistics.median(times) * 1e3, " / ".join(sorted(reasons)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--size", type=int, default=4 << 20)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    share_threads()
    rows = []
    print(f"{platform.machine()}, Python {platform.python_version()}, threads change every {SWITCH_S * 1e3} ms\n")
    print(f"{'body':>36} {'stall ms':>9} {'less texts':>11} {'answer ms':>10}  routed by load for")
    for kind, path, body in (("quiet: a few bytes", TEXT, b'{"prompt":"x"}'), *bodies(options.size)):
        if options.only and kind not in options.only:
            continue
        whole, rest = (uvloop.run(measure(path, body, t, options.repeat, options.size)) for t in (True, False))
        rows.append({"body": kind, "without_tokenizer_stall_ms": rest.stall_ms, **whole._asdict()})
        figures = f"{whole.stall_ms:>9.1f} {rest.stall_ms:>11.1f} {whole.answer_ms:>10.1f}"
        print(f"{kind:>36} {figures}  {whole.by_load}", flush=True)
    if options.json:
        result = {"machine": platform.machine(), "bytes": options.size, "bar_ms": BAR_MS, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
