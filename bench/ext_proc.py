"""What a picker costs: its CPU a request and the latency it adds, against the same Envoy without ext_proc.

For each transport, one Envoy (one worker thread) with two listeners, with and without ext_proc, before 16 endpoints
that answer at once; behind it the real `multipick epp` with a tokenizer, shared state in a real Valkey, and the chats
of a few conversations, of which only the last message is new. The transports take turns, case by case. Each case is
first run as fast as it goes over 32 connections (events come 4 ms apart), which gives the CPU figures; then at a steady
rate (300 requests/s; half of the fastest where that is less, and for events), with and without ext_proc, which gives
the latencies until the answer's first byte, counted from when a request was due. With two cores or more the pickers
have the last one to themselves, as far as this benchmark goes. There are several rounds, and of each figure the best
one counts: what it is when nothing else wants the processors.

Bodies go through the picker in two ways: "full duplex" is all of them, in both directions; "buffered" is the request's
in one message, of the response none, and its trailers, as `multipick`'s own Envoy is set up.

Before all that, each picker rests: its CPU a second and its memory. What it does at rest (metrics of 16 endpoints, the
store's loads) is part of the CPU a request, the less the more requests there are.

With `--before`, the picker of another checkout takes its turn, too, over its own HTTP/2.

With `--workers 1,2`, pickers of so many workers take turns instead, before Envoys of four threads, and nobody has a
core to himself. `busiest` is the part of the busiest worker of all their CPU: 0.5 is an even spread over two. With few
cores the requests/s say what the load's own programs and Envoy leave to the picker; its CPU a request what it costs.

    python bench/ext_proc.py [--seconds 2] [--transport h2] [--before FOLDER] [--state memory] [--json FILE]
    python bench/ext_proc.py --workers 1,2 [--seconds 2] [--json FILE]
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from multipick_sim.assets import MODEL_DIR
from multipick_sim.local.bootstrap import Bootstrap, Style, render
from multipick_sim.local.envoy import Envoy, envoy
from multipick_sim.local.processes import running
from multipick_sim.local.valkey import valkey
from multipick_sim.texts import fixed_text

ENDPOINTS = 16
CONVERSATIONS = 8
CONNECTIONS = 32
EVENTS, EVENT_BYTES, EVENT_EVERY_S = 100, 229, 0.004
STYLES: tuple[Style, ...] = ("standalone", "gateway")
BODIES = {"standalone": "buffered", "gateway": "full duplex"}
CASES = [(1024, False), (8192, False), (65536, False), (8192, True)]  # bytes of the chat, answered by events
PICKER = "import sys; from multipick_epp.app.cli import command; sys.exit(command(sys.argv[1:]))"
TRANSPORTS = ("h2", "grpc")
BEFORE = "before"  # stands for the other checkout's
THREADS = 4  # of an Envoy before several workers
WORKER = b"multipick_epp.app.worker"  # in the command line of one
ROOMS = ("cli", "epp", "operator", "sim")
CORES = sorted(os.sched_getaffinity(0))  # as it began: each picker in its turn has the last one to itself
REST_S = 5.0
STEADY = 300.0  # requests/s
BARS = {1024: 3.5, 8192: 4.0, 65536: 8.0}  # picker CPU by that of Envoy alone, full duplex, by bytes of the chat
EVENT_BARS = {"full duplex": 1.0, "buffered": 0.35}
ADDED_BAR, RATE_BAR = 0.5, 4.0  # against grpc.aio
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"vllm","max_model_len":131072}]}'
METRICS = b'vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:cache_config_info{block_size="16"} 1\n'


@dataclass(frozen=True)
class Row:
    transport: str
    body: str
    chat_bytes: int
    answer: str
    requests_per_s: float  # as fast as it goes
    picker_cpu_us: float  # a request, then
    envoy_cpu_us: float
    envoy_alone_cpu_us: float
    steady_per_s: float  # requests/s, then
    picker_rest_us: float  # of its CPU a request, what it does at rest as well
    p50_ms: float
    p99_ms: float
    alone_p50_ms: float
    alone_p99_ms: float
    busiest: float  # of all its workers' CPU, as fast as it goes, the part of the busiest; 1 where there is one
    stages_us: dict[str, float]  # mean wall time of a decision's stages, as fast as it goes

    @property
    def ratio(self) -> float:
        """The picker's CPU by that of an Envoy without ext_proc."""
        return self.picker_cpu_us / self.envoy_alone_cpu_us


@dataclass(frozen=True)
class Idle:
    """A picker at rest."""

    transport: str
    cpu_us_per_s: float
    memory_mb: float  # of its process and its children, with their part of what they share


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


def cpu_us(pid: int) -> float:
    """CPU time of a process, in all its threads, and of its children so far."""
    spent = sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return spent / 1e3 + sum(map(cpu_us, map(int, children)))


def workers_us(pid: int) -> list[float]:
    """CPU time of each of a picker's workers; of the picker where it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [int(each) for each in children if WORKER in Path(f"/proc/{each}/cmdline").read_bytes()]
    return [cpu_us(each) for each in workers or [pid]]


def memory_mb(pid: int) -> float:
    """Memory of a process and its children, each with its part of what it shares."""
    pss = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(pss[1]) / 1024 if pss else 0.0) + sum(map(memory_mb, map(int, children)))


async def rest(transport: str, parts: "Parts") -> Idle:
    await asyncio.sleep(REST_S)
    before = cpu_us(parts.picker)
    await asyncio.sleep(REST_S)
    return Idle(transport, (cpu_us(parts.picker) - before) / REST_S, memory_mb(parts.picker))


async def stages(admin_url: str) -> dict[str, tuple[float, float]]:
    """Seconds and count of each stage of a decision so far."""
    async with aiohttp.ClientSession() as http, http.get(f"{admin_url}/metrics") as response:
        page = await response.text()
    pattern = r'^multipick_(?:decision_stage|ext_proc)_seconds_{}{{stage="(\w+)"}} (\S+)$'
    sums = dict(re.findall(pattern.format("sum"), page, re.MULTILINE))
    counts = dict(re.findall(pattern.format("count"), page, re.MULTILINE))
    return {stage: (float(total), float(counts[stage])) for stage, total in sums.items()}


async def measure(idle: Idle, style: Style, size: int, events: bool, parts: "Parts", seconds: float) -> Row:
    front = parts.envoys[style]
    pooled, alone, load = front.url, str(front.direct_url), requests(size, events)
    await as_fast_as_it_goes(pooled, load, 0.3 + events)  # warm: connections, conversations, tokens
    picker, gateway, before = cpu_us(parts.picker), cpu_us(front.pid), await stages(parts.admin_url)
    spent, started = workers_us(parts.picker), time.perf_counter()
    done = await as_fast_as_it_goes(pooled, load, seconds)
    took = time.perf_counter() - started
    picker, gateway = cpu_us(parts.picker) - picker, cpu_us(front.pid) - gateway
    spent = [now - then for now, then in zip(workers_us(parts.picker), spent, strict=True)]
    after = await stages(parts.admin_url)
    without = cpu_us(front.pid)
    done_alone = await as_fast_as_it_goes(alone, load, seconds)
    without = cpu_us(front.pid) - without
    rate = done / took / 2 if events else min(STEADY, done / took / 2)
    latencies = [await at_a_rate(url, load, rate, seconds) for url in (pooled, alone)]
    percentiles = [(statistics.median(each) * 1e3, each[int(len(each) * 0.99)] * 1e3) for each in latencies]
    deltas = {stage: (total - before[stage][0], count - before[stage][1]) for stage, (total, count) in after.items()}
    means = {stage: total / count * 1e6 for stage, (total, count) in deltas.items() if count}
    answered = f"{EVENTS} events" if events else "json"
    cpus = (picker / done, gateway / done, without / done_alone)
    resting = idle.cpu_us_per_s * took / done
    times = (*percentiles[0], *percentiles[1])
    busiest = max(spent) / sum(spent)
    return Row(idle.transport, BODIES[style], size, answered, done / took, *cpus, rate, resting, *times, busiest, means)


def least_disturbed(rows: Sequence[Row]) -> Row:
    """Of rounds of the same, the best of each figure: what it is when nothing else wants the processor."""
    columns = {each.name: [getattr(row, each.name) for row in rows] for each in fields(Row)}
    most = {"requests_per_s", "steady_per_s"}
    figures = {name: max(seen) if name in most else min(seen) for name, seen in columns.items() if name != "stages_us"}
    stages = {stage: min(row.stages_us[stage] for row in rows) for stage in rows[0].stages_us}
    return Row(**figures, stages_us=stages)


@dataclass(frozen=True)
class Parts:
    picker: int  # process id
    admin_url: str
    envoys: dict[Style, Envoy]


@dataclass(frozen=True)
class Variant:
    """One of the pickers that take turns."""

    name: str
    transport: str = "h2"
    checkout: Path | None = None  # that it is of, where not of this one
    workers: int | None = None  # None: one, with a core of its own, before an Envoy of one thread


async def start(stack: AsyncExitStack, variant: Variant, state: str) -> Parts:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    everyone, picker_cores = cores(shared=variant.workers is not None)
    os.sched_setaffinity(0, everyone)
    serve = [sys.executable, __file__, "--endpoints"]
    await stack.enter_async_context(running(serve, log=folder / "endpoints"))
    endpoints = json.loads(await line(folder / "endpoints", "127"))
    url = "memory" if state == "memory" else (await stack.enter_async_context(valkey())).url
    config = {
        "pool": {"name": "bench", "models": ["bench"], "tokenizer": str(MODEL_DIR)},
        "endpoints": [{"address": endpoint} for endpoint in endpoints],
        "state": url,
        "events": {"enabled": False},
        "listen": {"host": "127.0.0.1", "ext_proc": 0, "health": 0, "admin": 0, "transport": variant.transport},
    } | ({} if variant.workers is None else {"workers": variant.workers})
    checkout = variant.checkout
    env = os.environ | ({"PYTHONPATH": ":".join(str(checkout / room) for room in ROOMS)} if checkout else {})
    (folder / "picker.yaml").write_text(json.dumps(config))
    epp = [sys.executable, "-c", PICKER, "--config", str(folder / "picker.yaml")]
    os.sched_setaffinity(0, picker_cores)  # the child inherits it
    picker = await stack.enter_async_context(running(epp, log=folder / "picker", env=env))
    os.sched_setaffinity(0, everyone)
    ports = json.loads(await line(folder / "picker", '"listening"'))
    envoys: dict[Style, Envoy] = {}
    for style in STYLES:
        bootstrap = render(Bootstrap(endpoints, [ports["ext_proc"]], style=style, direct_port=0))
        log, threads = folder / f"envoy-{style}", 1 if variant.workers is None else THREADS
        envoys[style] = await stack.enter_async_context(envoy(bootstrap, log=log, workers=threads))
    return Parts(picker.pid, f"http://127.0.0.1:{ports['admin']}", envoys)


def cores(shared: bool) -> tuple[set[int], set[int]]:
    """For everybody else, for the picker."""
    *others, last = CORES
    if shared:
        return {*others, last}, {*others, last}
    return (set(others), {last}) if others else ({last}, {last})


async def line(log: Path, part: str) -> str:
    async with asyncio.timeout(60):
        while True:
            for each in lines(log):
                if part in each:
                    return each
            await asyncio.sleep(0.05)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


async def endpoints() -> None:
    servers = [await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0) for _ in range(ENDPOINTS)]
    print(json.dumps([f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]), flush=True)
    await asyncio.Event().wait()


async def bench(variants: Sequence[Variant], seconds: float, rounds: int, state: str) -> tuple[list[Idle], list[Row]]:
    async with AsyncExitStack() as stack:
        parts = {variant.name: await start(stack, variant, state) for variant in variants}
        resting = await asyncio.gather(*(rest(name, part) for name, part in parts.items()))
        for idle in resting:
            print(f"{idle.transport:<6} at rest: {idle.cpu_us_per_s / 1e4:.1f} % of a core, {idle.memory_mb:.0f} MB")
        print(f"\n{HEAD}")
        rows = []
        for (size, events), style in itertools.product(CASES, STYLES):
            turns = [
                [await measure(idle, style, size, events, parts[idle.transport], seconds) for idle in resting]
                for _ in range(rounds)
            ]
            rows += [least_disturbed(seen) for seen in zip(*turns, strict=True)]
            for row in rows[-len(resting) :]:
                print_row(row)
        return resting, rows


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name, load = model[1] if model else platform.machine(), os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores (load {load:.1f} before), Python {platform.python_version()}"


HEAD = (
    f"{'':>44} | {'CPU us a request':^47} | {'first byte ms at a steady rate':^41}\n"
    f"{'':<6} {'body':<11} {'chat':>6} {'answer':>11} {'req/s':>6} | "
    f"{'picker':>7} {'rest':>6} {'Envoy':>6} {'alone':>6} {'ratio':>6} {'busiest':>7} | "
    f"{'rate':>6} {'p50':>6} {'alone':>6} {'p99':>6} {'alone':>6}  added"
)


def print_row(row: Row) -> None:
    print(
        f"{row.transport:<6} {row.body:<11} {row.chat_bytes:>6} {row.answer:>11} {row.requests_per_s:>6.0f} | "
        f"{row.picker_cpu_us:>7.0f} {row.picker_rest_us:>6.0f} {row.envoy_cpu_us:>6.0f} {row.envoy_alone_cpu_us:>6.0f} "
        f"{row.ratio:>6.2f} {row.busiest:>7.2f} | {row.steady_per_s:>6.0f} {row.p50_ms:>6.2f} {row.alone_p50_ms:>6.2f} "
        f"{row.p99_ms:>6.2f} {row.alone_p99_ms:>6.2f}  {row.p50_ms - row.alone_p50_ms:.2f} / "
        f"{row.p99_ms - row.alone_p99_ms:.2f}",
        flush=True,
    )


def print_stages(rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(stage for row in rows for stage in row.stages_us))
    print("\nmean wall time of a decision's stages, us\n" + " " * 37 + "".join(f"{name:>9}" for name in names))
    for row in rows:
        figures = "".join(f"{row.stages_us.get(name, 0):>9.0f}" for name in names)
        print(f"{row.transport:<6} {row.body:<11} {row.chat_bytes:>6} {row.answer:>11}{figures}")


def bars(rows: Sequence[Row]) -> dict[str, tuple[float, float, bool]]:
    """What was measured, its bar, and whether that is met."""
    found = {(row.transport, row.body, row.chat_bytes, row.answer): row for row in rows}
    seen: dict[str, tuple[float, float, bool]] = {}
    for size, bar in BARS.items():
        if own := found.get(("h2", "full duplex", size, "json")):
            seen[f"CPU by Envoy's alone, {size:,} B, full duplex"] = (own.ratio, bar, own.ratio <= bar)
    for body, bar in EVENT_BARS.items():
        if own := found.get(("h2", body, 8192, f"{EVENTS} events")):
            seen[f"the same, 8,192 B and {EVENTS} events, {body}"] = (own.ratio, bar, own.ratio <= bar)
    pair = [found.get((transport, "full duplex", 8192, "json")) for transport in TRANSPORTS]
    if (own := pair[0]) and (other := pair[1]):
        for name in ("p50", "p99"):
            added = [getattr(row, f"{name}_ms") - getattr(row, f"alone_{name}_ms") for row in (own, other)]
            by = added[0] / added[1]
            seen[f"{name} added at {own.steady_per_s:.0f}/s, by grpc.aio's at {other.steady_per_s:.0f}/s"] = (
                by,
                ADDED_BAR,
                by <= ADDED_BAR,
            )
        times = other.picker_cpu_us / own.picker_cpu_us
        seen["requests/s of a picker core, by grpc.aio's"] = (times, RATE_BAR, times >= RATE_BAR)
    return seen


def print_bars(seen: dict[str, tuple[float, float, bool]]) -> None:
    print(f"\n{'':<58}{'seen':>7}{'bar':>7}")
    for what, (value, bar, met) in seen.items():
        print(f"{what:<58}{value:>7.2f}{bar:>7.2f}  {'met' if met else 'MISSED'}")


def counts(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement; there are four a row")
    parser.add_argument("--rounds", type=int, default=3, help="of which the least disturbed counts")
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="may be repeated; else both")
    parser.add_argument("--state", choices=["valkey", "memory"], default="valkey")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, to compare with")
    parser.add_argument("--workers", type=counts, metavar="N,...", help="pickers of so many, instead of transports")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--endpoints", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.endpoints:
        uvloop.run(endpoints())
        return
    measured_on = machine()
    print(f"{measured_on}\nratio: the picker's CPU by that of an Envoy without ext_proc\n")
    variants = [Variant(each, each) for each in options.transport or TRANSPORTS]
    if options.before is not None:
        variants.append(Variant(BEFORE, checkout=options.before))
    if options.workers:
        variants = [Variant(f"x{number}", workers=number) for number in options.workers]
    resting, rows = uvloop.run(bench(variants, options.seconds, options.rounds, options.state))
    print_stages(rows)
    seen = bars(rows)
    print_bars(seen)
    if options.json:
        result = {
            "machine": measured_on,
            "state": options.state,
            "bars": {what: {"seen": value, "bar": bar, "met": met} for what, (value, bar, met) in seen.items()},
            "idle": [asdict(idle) for idle in resting],
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
