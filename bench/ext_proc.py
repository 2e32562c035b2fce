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
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

import aiohttp
import uvloop
from ext_proc_load import EVENTS, as_fast_as_it_goes, at_a_rate, requests
from ext_proc_parts import STYLES, Parts, Variant, cpu_us, memory_mb, start, workers_us
from ext_proc_table import HEAD, TRANSPORTS, Idle, Row, bars, least_disturbed, print_bars, print_row, print_stages
from multipick_sim.local.bootstrap import Style

BODIES = {"standalone": "buffered", "gateway": "full duplex"}
CASES = [(1024, False), (8192, False), (65536, False), (8192, True)]  # bytes of the chat, answered by events
BEFORE = "before"  # stands for the other checkout's
REST_S, LOOKS = 5.0, 7  # the median: these endpoints can't say how they tokenise, and are asked again now and then
STEADY = 300.0  # requests/s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement; there are four a row")
    parser.add_argument("--rounds", type=int, default=3, help="of which the least disturbed counts")
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="may be repeated; else both")
    parser.add_argument("--state", choices=["valkey", "memory"], default="valkey")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, to compare with")
    parser.add_argument("--workers", type=counts, metavar="N,...", help="pickers of so many, instead of transports")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
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


async def rest(transport: str, parts: Parts) -> Idle:
    await asyncio.sleep(REST_S)
    spent = []
    for _ in range(LOOKS):
        before = cpu_us(parts.picker)
        await asyncio.sleep(REST_S / 2)
        spent.append((cpu_us(parts.picker) - before) / (REST_S / 2))
    return Idle(transport, statistics.median(spent), memory_mb(parts.picker))


async def stages(admin_url: str) -> dict[str, tuple[float, float]]:
    """Seconds and count of each stage of a decision so far."""
    async with aiohttp.ClientSession() as http, http.get(f"{admin_url}/metrics") as response:
        page = await response.text()
    pattern = r'^multipick_(?:decision_stage|ext_proc)_seconds_{}{{stage="(\w+)"}} (\S+)$'
    sums = dict(re.findall(pattern.format("sum"), page, re.MULTILINE))
    counts = dict(re.findall(pattern.format("count"), page, re.MULTILINE))
    return {stage: (float(total), float(counts[stage])) for stage, total in sums.items()}


async def measure(idle: Idle, style: Style, size: int, events: bool, parts: Parts, seconds: float) -> Row:
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


def counts(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
