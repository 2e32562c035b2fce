"""What looking at the engines' metrics costs a picker: CPU a look, and of a core with two looks a second, the default.

The engines are another process, which answers whatever is asked with a page that vLLM 0.32 served (44 KB, one chunk, as
vLLM sends it). `look` is all of it: the monitor, the registry, the page. `client` is the same number of questions
whose answers are thrown away, `page` the reading of one in memory, `rest` what remains. `wait` is how long a timer that
wants to fire every 2 ms had to wait at most: a request that comes just then waits as long.

    python bench/scrapes.py [--engines 16,256] [--seconds 10] [--json FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, cast

import uvloop
from multipick_epp.app.app import share_threads
from multipick_epp.engines import bounds, metrics_page
from multipick_epp.engines.kept import KeptQuestion
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.monitor import Monitor
from multipick_epp.pods.registry import Registry
from multipick_epp.tasks.supervisor import Supervisor
from multipick_epp.types import Endpoint, Load

PAGE = Path(__file__).parents[1] / "tests/fixtures/A_sha256_bs32_31blocks/metrics_99_end.txt"
INTERVAL_S = 0.5
PROBE_S = 0.002


class Row(NamedTuple):
    """CPU microseconds of one look."""

    engines: int
    looks_a_second: float
    of_a_core: float
    look_us: float
    client_us: float
    page_us: float
    rest_us: float
    wait_ms: float


class Engine(asyncio.Protocol):
    """Answers each question with the page."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no instances of it

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


def serve(pipe: Connection, engines: int) -> None:
    """The engines' process, until the other end closes."""

    async def run() -> None:
        page = PAGE.read_bytes()
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ntransfer-encoding: chunked\r\n\r\n"
        answer += b"%x\r\n%b\r\n0\r\n\r\n" % (len(page), page)
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(lambda: Engine(answer), "127.0.0.1", 0) for _ in range(engines)]
        pipe.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.to_thread(pipe.poll, None)

    uvloop.run(run())


async def spent(seconds: float, looks: Callable[[], int]) -> tuple[float, int]:
    """CPU seconds of this process, and looks, within so long."""
    before, cpu = looks(), time.process_time()
    await asyncio.sleep(seconds)
    return time.process_time() - cpu, looks() - before


async def monitored(endpoints: Sequence[Endpoint], measure: Callable[[Callable[[], int]], Awaitable[None]]) -> None:
    """Measure while a monitor looks at all of them."""
    looks = 0

    def looked(endpoint: Endpoint, reached: bool) -> None:
        nonlocal looks
        assert reached
        looks += 1

    registry, supervisor = Registry(), Supervisor()
    registry.set([PodEndpoint(endpoint) for endpoint in endpoints])
    monitor = Monitor(registry, supervisor, lambda _: Load(), lambda: 100.0, INTERVAL_S, looked=looked)
    monitor.start()
    await monitor.looked()
    await asyncio.sleep(2 * INTERVAL_S)
    assert len(registry.ready().endpoints) == len(endpoints)
    await measure(lambda: looks)
    await monitor.close()


async def asked(endpoints: Sequence[Endpoint], seconds: float) -> float:
    """CPU seconds of a question whose answer nobody reads."""
    answers = 0

    async def ask(endpoint: Endpoint) -> None:
        nonlocal answers
        question = KeptQuestion(endpoint, "/metrics", bounds.METRICS_BYTES, bounds.METRICS_S)
        try:
            while True:
                assert isinstance(await question.ask(), bytes)
                answers += 1
                await asyncio.sleep(INTERVAL_S)
        finally:
            question.close()

    tasks = [asyncio.create_task(ask(endpoint)) for endpoint in endpoints]
    await asyncio.sleep(2 * INTERVAL_S)
    cpu, count = await spent(seconds, lambda: answers)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return cpu / count


def page_s(times: int = 500) -> float:
    """CPU seconds of reading one page."""
    page = PAGE.read_bytes()
    cpu = time.process_time()
    for _ in range(times):
        metrics_page.parse(page)
    return (time.process_time() - cpu) / times


async def longest_wait(seconds: float) -> float:
    """Of a timer, beyond its time."""
    loop, longest = asyncio.get_running_loop(), 0.0
    until = loop.time() + seconds
    while loop.time() < until:
        before = time.perf_counter()
        await asyncio.sleep(PROBE_S)
        longest = max(longest, time.perf_counter() - before - PROBE_S)
    return longest


async def measure(endpoints: Sequence[Endpoint], seconds: float) -> Row:
    cpu, looks, wait = 0.0, 0, 0.0

    async def quietly(count: Callable[[], int]) -> None:
        nonlocal cpu, looks
        cpu, looks = await spent(seconds, count)

    async def probed(count: Callable[[], int]) -> None:
        nonlocal wait
        wait = await longest_wait(seconds)

    await monitored(endpoints, quietly)
    await monitored(endpoints, probed)
    client, page = await asked(endpoints, seconds), page_s()
    look_us, client_us, page_us = cpu / looks * 1e6, client * 1e6, page * 1e6
    rest_us = look_us - client_us - page_us
    return Row(len(endpoints), looks / seconds, cpu / seconds, look_us, client_us, page_us, rest_us, wait * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="16,256")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    share_threads()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(f"{platform.machine()}, Python {platform.python_version()}: CPU us of one look")
    print("engines  looks/s  of a core     look   client     page     rest  wait ms")
    rows = []
    for count in map(int, options.engines.split(",")):
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        engines = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, count), daemon=True)
        engines.start()
        row = uvloop.run(measure([Endpoint(f"127.0.0.1:{port}") for port in ours.recv()], options.seconds))
        ours.send("end")
        engines.join()
        figures = " ".join(f"{figure:>8.0f}" for figure in (row.look_us, row.client_us, row.page_us, row.rest_us))
        print(f"{count:>7} {row.looks_a_second:>8.0f} {row.of_a_core:>10.1%} {figures} {row.wait_ms:>8.1f}", flush=True)
        rows.append(row._asdict())
    if options.json:
        options.json.write_text(json.dumps({"interval_s": INTERVAL_S, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
