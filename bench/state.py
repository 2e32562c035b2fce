"""The state room against its bars (bench/README.md), on a real Valkey where one is needed.

1. index: lookup time and memory of the mirror, 256 endpoints x 50,000 blocks (of 7.4 million keys 70% on one endpoint,
   20% on 2, 8% on 4, 2% on 16; prompts share an 8-block head on a quarter of the endpoints and reach 100, 60 and 30% of
   the hit depth on three).
2. ingest: one owner writes, another process follows: block operations a second, staleness, CPU of all three.
3. reserve + release of prompts that are all new: CPU of client and server a pair, time of a reserve, with one picker
   and four, beside redis-py's own calls of the same scripts.
4. pruning: how often the choice among the candidates_of of a stale view is not the choice among all, and what it costs.

    python bench/state.py [--parts index ingest reserve pruning] [--small] [--json FILE]
"""

import argparse
import asyncio
import gc
import heapq
import json
import os
import platform
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

import redis.asyncio
import uvloop
from multipick_epp.blocks import KEY_MASK, Chains
from multipick_epp.policy.candidates import candidates_of
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.snapshot import Snapshot
from multipick_epp.state.cache import Cache
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.ledger import Charge
from multipick_epp.state.protocol import Applied, Candidates, Delta, EqualPrompt
from multipick_epp.state.redis import RedisState, parse_url
from multipick_epp.state.redis.figures import figure
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.loads import POLL_S
from multipick_epp.state.redis.scripts import load
from multipick_epp.state.redis.turns import reserve_step
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId, ReservationId
from multipick_sim.local.valkey import valkey

BLOCK: Final = 16
POOL: Final = "bench"
CANDIDATES: Final = 16
REST: Final = 5  # tokens after a prompt's last full block
PARTS: Final = ("index", "ingest", "reserve", "pruning")
MARK: Final = Endpoint("mark:1")
Row = dict[str, Any]


def pods(count: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.{number // 256}.{number % 256}:8000") for number in range(count)]


def quantile(sorted_values: Sequence[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process's main thread, where Valkey does all its work."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def random_keys(count: int) -> list[BlockKey]:
    return [BlockKey(key & KEY_MASK) for key in array("Q", os.urandom(8 * count))]


# --- 1. index


def bench_index(endpoints: int, blocks: int, lookups: int) -> list[Row]:
    rng = Random(1)
    caches = [Cache(endpoint, BLOCK) for endpoint in pods(endpoints)]
    index = LocalIndex({}, StateStats())
    before = resident_bytes()
    started = time.process_time()
    operations = 0
    for cache in caches:
        index.set_mode(cache.endpoint, Mode.EXACT)
    for copies, share in ((1, 0.7), (2, 0.2), (4, 0.08), (16, 0.02)):
        copies = min(copies, endpoints)
        distinct = int(share * endpoints * blocks / 1.74)
        for at in range(0, distinct, 256):
            keys = random_keys(min(256, distinct - at))
            for cache in rng.sample(caches, copies):
                index.change(cache, keys, ())
                operations += len(keys)
    ingest_us = (time.process_time() - started) / operations * 1e6
    gc.collect()
    size: Row = {"endpoints": endpoints, "entries": operations, "keys": len(index)}
    size |= {"mirror_mb": (resident_bytes() - before) / 1e6, "ingest_us": ingest_us}
    rows = []
    for length in (64, 512, 2048):
        for share in (0.0, 0.5, 1.0):
            times = []
            prompts = [prompt(index, caches, rng, length, share) for _ in range(lookups)]
            for chains in prompts:
                started = time.perf_counter()
                index.hits(chains)
                times.append((time.perf_counter() - started) * 1e6)
            times.sort()
            rows.append(size | {"blocks": length, "hit": share, "p50_us": quantile(times, 0.5)})
            rows[-1]["p99_us"] = quantile(times, 0.99)
    return rows


def prompt(index: LocalIndex, caches: Sequence[Cache], rng: Random, length: int, share: float) -> Chains:
    keys = random_keys(length)
    if share:
        for cache in rng.sample(caches, max(1, len(caches) // 4)):
            index.change(cache, keys[:8], ())
        for cache, reach in zip(rng.sample(caches, 3), (1.0, 0.6, 0.3), strict=True):
            index.change(cache, keys[: int(length * share * reach)], ())
    return Chains(length * BLOCK + 1, {BLOCK: keys})


# --- 2. ingest


async def write_events(url: str, seconds: float, operations_a_second: float | None) -> Row:
    """An owner of 64 endpoints: every 5 ms each that is due stores 8 blocks and removes the 8 it stored longest ago."""
    state = RedisState(parse_url(url), POOL, ReplicaId("owner"), picks=False)
    await state.start()
    rng = Random(2)
    caches = [Cache(endpoint, BLOCK) for endpoint in pods(64)]
    held = {cache: random_keys(2048) for cache in caches}
    for endpoint in (*(cache.endpoint for cache in caches), MARK):
        await state.take_over(endpoint)
    await state.apply([Delta(cache, 1, 0, 0, held[cache]) for cache in caches])
    sequence = dict.fromkeys(caches, 0)
    marks, operations = -1, 0
    started, cpu = time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < started + seconds:
        due = 1024.0 if operations_a_second is None else (now - started) * operations_a_second - operations
        deltas = []
        for cache in rng.sample(caches, min(64, int(due / 16))):
            fresh, old = random_keys(8), held[cache][:8]
            held[cache] = held[cache][8:] + fresh
            sequence[cache] += 1
            deltas.append(Delta(cache, 1, sequence[cache], sequence[cache], fresh, old))
        marks += 1
        stamp = BlockKey(time.monotonic_ns() // 1000)
        applied = await state.apply([*deltas, Delta(Cache(MARK, BLOCK), 1, marks, marks, [stamp])])
        assert set(applied) == {Applied.NEW}
        operations += 16 * len(deltas)
        if operations_a_second is not None:
            await asyncio.sleep(0.005)
    row = {"operations_s": operations / (time.perf_counter() - started)}
    row |= {"writer_cores": (time.process_time() - cpu) / seconds, "writer_us": 0.0}
    row["writer_us"] = 1e6 * row["writer_cores"] / row["operations_s"]
    await state.close()
    return row


async def read_events(url: str, seconds: float) -> Row:
    state = RedisState(parse_url(url), POOL, ReplicaId("reader"), ingests=False)
    stale: list[float] = []

    def stored(endpoint: Endpoint, keys: Sequence[BlockKey]) -> None:
        if endpoint == MARK:
            stale.extend(time.monotonic_ns() / 1e6 - key / 1000 for key in keys)

    await state.start()
    state.on_stored(stored)
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    row = {"reader_cores": (time.process_time() - cpu) / seconds, "reads": len(stale)}
    stale.sort()
    row |= {"stale_p50_ms": quantile(stale, 0.5), "stale_p99_ms": quantile(stale, 0.99)}
    await state.close()
    return row


async def bench_ingest(executor: ProcessPoolExecutor, seconds: float) -> list[Row]:
    rows = []
    for rate in (50_000.0, None):
        async with valkey() as server:
            reading = asyncio.create_task(in_process(executor, read_events, server.url, seconds + 1))
            await asyncio.sleep(0.7)
            cpu = cpu_s(server.pid)
            wrote = await in_process(executor, write_events, server.url, seconds, rate)
            row = {"paced": rate is not None} | wrote | {"server_cores": (cpu_s(server.pid) - cpu) / seconds}
            rows.append(row | await reading)
    return rows


# --- 3. reserve + release


async def pick_ours(url: str, name: str, endpoints: int, sent: int, concurrency: int, seconds: float) -> Row:
    state = RedisState(parse_url(url), POOL, ReplicaId(name), ingests=False)
    await state.start()
    pool = [(endpoint, 900 + number) for number, endpoint in enumerate(pods(endpoints))]

    async def reserve(reservation: ReservationId, candidates: Candidates, key: BlockKey) -> None:
        here = state.stats.reserved_here
        await state.reserve(reservation, candidates, EqualPrompt(key, REST))
        if state.stats.reserved_here > here:  # no answer in 50 ms on a busy machine: let the connection come back
            await asyncio.sleep(0.01)

    async def release(reservation: ReservationId) -> None:
        state.release(reservation)

    row = await drive(name, pool, sent, concurrency, seconds, reserve, release)
    row["reserved_here"] = state.stats.reserved_here
    await state.close()
    return row


async def pick_redis_py(url: str, name: str, endpoints: int, sent: int, concurrency: int, seconds: float) -> Row:
    client = redis.asyncio.Redis.from_url(url)
    keys = keys_of(POOL)
    names: tuple[Any, ...] = (keys.load, keys.charges(name.encode()), keys.routed)
    script = load("turn", when_full=True)
    await client.script_load(script.text)
    charges: dict[ReservationId, Charge] = {}
    pool = [(endpoint, 900 + number) for number, endpoint in enumerate(pods(endpoints))]

    async def reserve(reservation: ReservationId, candidates: Candidates, key: BlockKey) -> None:
        step: tuple[Any, ...] = reserve_step(candidates, EqualPrompt(key, REST))
        winner, new_tokens, _ = await client.evalsha(script.sha, len(names), *names, *step)
        charges[reservation] = Charge(candidates.endpoints[winner], new_tokens)

    async def release(reservation: ReservationId) -> None:
        charge = charges.pop(reservation)
        await client.evalsha(
            script.sha, len(names), *names, "change", charge.endpoint, -figure(charge.queued_tokens, 1)
        )

    row = await drive(name, pool, sent, concurrency, seconds, reserve, release)
    await client.aclose()
    return row


async def drive(
    name: str,
    pool: Sequence[tuple[Endpoint, int]],
    sent: int,
    concurrency: int,
    seconds: float,
    reserve: Callable[[ReservationId, Candidates, BlockKey], Coroutine[Any, Any, None]],
    release: Callable[[ReservationId], Coroutine[Any, Any, None]],
) -> Row:
    rng = Random(name)
    samples = [Candidates(*zip(*rng.sample(pool, sent), strict=True)) for _ in range(200)]
    times: list[float] = []
    ends = time.perf_counter() + seconds

    async def worker(number: int) -> None:
        turn = 0
        while (started := time.perf_counter()) < ends:
            turn += 1
            reservation = ReservationId(f"{name}-{number}-{turn}")
            await reserve(reservation, samples[turn % 200], BlockKey(rng.getrandbits(60)))
            times.append((time.perf_counter() - started) * 1e6)
            await release(reservation)

    cpu = time.process_time()
    await asyncio.gather(*(worker(number) for number in range(concurrency)))
    cpu = time.process_time() - cpu
    return {"pairs": len(times), "cpu_s": cpu, "times_us": times[:: max(1, len(times) // 20_000)]}


async def bench_reserve(executor: ProcessPoolExecutor, seconds: float) -> list[Row]:
    cases = [
        *((pick_ours, 16, 16, 1, 1), (pick_ours, 16, 16, 1, 16), (pick_ours, 16, 16, 4, 16)),
        *((pick_ours, 256, 16, 1, 1), (pick_ours, 256, 16, 1, 16), (pick_ours, 256, 16, 4, 16)),
        *((pick_ours, 256, 256, 1, 16), (pick_redis_py, 256, 16, 1, 16), (pick_redis_py, 256, 16, 4, 16)),
    ]
    rows = []
    for pick, endpoints, sent, pickers, concurrency in cases:
        async with valkey() as server:
            cpu = cpu_s(server.pid)
            arguments = (endpoints, sent, concurrency, seconds)
            done = await asyncio.gather(
                *(in_process(executor, pick, server.url, f"picker-{n}", *arguments) for n in range(pickers))
            )
            rows.append({"client": "redis-py" if pick is pick_redis_py else "multipick", "endpoints": endpoints})
            rows[-1] |= {"sent": sent, "pickers": pickers, "concurrency": concurrency}
            rows[-1] |= summary(done, seconds, cpu_s(server.pid) - cpu)
    return rows


def summary(done: Sequence[Row], seconds: float, server_s: float) -> Row:
    pairs = sum(row["pairs"] for row in done)
    times = sorted(heapq.merge(*(row["times_us"] for row in done)))
    return {
        "pairs_s": pairs / seconds,
        "client_us": sum(row["cpu_s"] for row in done) / pairs * 1e6,
        "server_us": server_s / pairs * 1e6,
        "p50_us": quantile(times, 0.5),
        "p99_us": quantile(times, 0.99),
        "reserved_here": sum(row.get("reserved_here", 0) for row in done),
    }


# --- 4. pruning


def bench_pruning(endpoints: int, decisions: int, pickers: int = 4, rate_s: float = 2_000.0) -> Row:
    """Four pickers with views of their own, refreshed as often as those of `RedisState`, against the shared truth."""
    rng = Random(4)
    queued, in_flight = [0] * endpoints, [0] * endpoints
    views = [([0] * endpoints, [0] * endpoints) for _ in range(pickers)]
    ends: list[tuple[float, int, int]] = []  # (when, row, tokens still queued)
    names = pods(endpoints)
    refreshed = [0.0] * pickers
    now, others, regrets = 0.0, 0, []
    for _ in range(decisions):
        now += rng.expovariate(rate_s)
        while ends and ends[0][0] <= now:
            _, row, tokens = heapq.heappop(ends)
            queued[row] -= tokens
            in_flight[row] -= 0 if tokens else 1
        picker = rng.randrange(pickers)
        if now > refreshed[picker] + POLL_S:
            refreshed[picker] = now
            views[picker] = (queued[:], in_flight[:])
        length = rng.randrange(200, 16_000)
        hits = [0] * endpoints
        for row in rng.sample(range(endpoints), endpoints // 4):
            hits[row] = 128
        for row, share in zip(rng.sample(range(endpoints), 3), (0.95, 0.6, 0.3), strict=True):
            hits[row] = int(length * share)
        view = Snapshot(length, names, hits, *views[picker])
        score = [(q + max(1, length - h)) * (n + 1) for q, h, n in zip(queued, hits, in_flight, strict=True)]
        sent = candidates_of(lmetric, lmetric(view, rng))
        chosen, best = min(sent, key=score.__getitem__), min(score)
        others += score[chosen] > best
        regrets.append(score[chosen] / best - 1)
        new = max(1, length - hits[chosen])
        queued[chosen] += new
        in_flight[chosen] += 1
        views[picker][0][chosen] += new
        views[picker][1][chosen] += 1
        prefilled = now + (queued[chosen] / 30_000)
        heapq.heappush(ends, (prefilled, chosen, new))
        heapq.heappush(ends, (prefilled + rng.expovariate(1 / 4), chosen, 0))
    regrets.sort()
    return {
        "endpoints": endpoints,
        "pickers": pickers,
        "decisions": decisions,
        "mean_in_flight": statistics.fmean(in_flight),
        "other_share": others / decisions,
        "regret_mean": statistics.fmean(regrets),
        "regret_p99": quantile(regrets, 0.99),
    }


# ---


def run(function: Callable[..., Coroutine[Any, Any, Row]], *arguments: Any) -> Row:
    return uvloop.run(function(*arguments))


async def in_process(executor: ProcessPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    loop = asyncio.get_running_loop()
    if asyncio.iscoroutinefunction(function):
        return await loop.run_in_executor(executor, run, function, *arguments)
    return await loop.run_in_executor(executor, function, *arguments)


async def measure(parts: Sequence[str], small: bool) -> dict[str, list[Row]]:
    endpoints, blocks, seconds = (16, 5_000, 1.0) if small else (256, 50_000, 5.0)
    tables: dict[str, list[Row]] = {}
    context = get_context("spawn")
    for part in parts:
        print(f"{part} ...", file=sys.stderr)
        with ProcessPoolExecutor(
            5, mp_context=context
        ) as executor:  # new ones, so that memory is measured from nothing
            await asyncio.gather(*(in_process(executor, time.sleep, 0.5) for _ in range(5)))
            match part:
                case "index":
                    rows = await in_process(executor, bench_index, endpoints, blocks, 50 if small else 300)
                case "ingest":
                    rows = await bench_ingest(executor, seconds)
                case "reserve":
                    rows = await bench_reserve(executor, seconds)
                case _:
                    decisions = 4_000 if small else 20_000
                    rows = [await in_process(executor, bench_pruning, count, decisions) for count in (64, 256)]
        tables[part] = rows
        show(part, rows)
    return tables


def show(title: str, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--small", action="store_true", help="16 endpoints x 5,000 blocks, a second each")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    tables = asyncio.run(measure(options.parts, options.small))
    machine: Row = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    machine["load"] = os.getloadavg()[0]
    print(f"\n{machine}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine} | tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
