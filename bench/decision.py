"""Decision time in process: tokens known, 256 endpoints, prompts of 2,048 blocks. Bars at 256 endpoints: one cache an
endpoint p50 <= 120 us, p99 <= 1 ms; two caches p50 <= 0.4 ms; one full-attention and five sliding groups p50 <= 1 ms.

Timed is what a picker does between a prompt's block keys and the shared reserve: lookup, snapshot, policy, guard,
candidates. p5 is nearest to what it takes on a machine that does nothing else.

The prompts share an 8-block head on a quarter of the endpoints; three endpoints hold 100, 60 and 30 percent of each.

`gpu+cpu`: the CPU tier, with weight 0.5, has what the GPU has, and the whole prompt on one endpoint more, whose GPU has
a tenth. `full+sliding` and `one+five`: each sliding group (1,024 tokens) has the last 64 blocks of what the full one
holds; of the 60 percent, it lacks the last ten, so that the hit is lowered.

    python bench/decision.py [--endpoints 256] [--caches one ...] [--blocks 2048] [--decisions 2000] [--json FILE]
"""

import argparse
import asyncio
import json
import platform
import statistics
import time
from pathlib import Path
from random import Random

from multipick_epp.blocks import Chains, block_keys, root_key
from multipick_epp.decision.choice import Chooser
from multipick_epp.decision.hotspots import Hotspots
from multipick_epp.decision.prompts import Known
from multipick_epp.engines.metrics_page import Gauges
from multipick_epp.pods.columns import Columns
from multipick_epp.pods.endpoints import PodEndpoint
from multipick_epp.pods.registry import Registry
from multipick_epp.pods.unexplained import Unexplained
from multipick_epp.policy.lmetric import lmetric
from multipick_epp.policy.registry import READ_CONTEXTS, policy
from multipick_epp.policy.snapshot import Rank
from multipick_epp.state.cache import Cache
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Candidates, Delta
from multipick_epp.telemetry.metrics import Metrics
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId

BLOCK = 16
PROMPTS = 20


WINDOW = 64  # blocks
CACHES = ("one", "gpu+cpu", "full+sliding", "one+five")


def other_caches(caches: str, endpoint: Endpoint) -> list[Cache]:
    """What the endpoint has beside its full-attention GPU cache."""
    if caches == "gpu+cpu":
        return [Cache(endpoint, BLOCK, "CPU")]
    groups = {"one": 0, "full+sliding": 1, "one+five": 5}[caches]
    window = WINDOW * BLOCK
    return [Cache(endpoint, BLOCK, "GPU", group, "sliding_window", window) for group in range(1, groups + 1)]


async def prepare(
    endpoints: int, caches: str, blocks: int, rng: Random, rank: Rank = lmetric
) -> tuple[Chooser, Columns, list[Known]]:
    pool = [Endpoint(f"10.0.{i // 256}.{i % 256}:8000") for i in range(endpoints)]
    state, registry, metrics = MemoryState(medium_weights={"CPU": 0.5}), Registry(), Metrics().stage_seconds
    registry.set([PodEndpoint(endpoint) for endpoint in pool])
    root = root_key(b"", "bench")
    head = [rng.randrange(32000) for _ in range(8 * BLOCK)]
    held: dict[Endpoint, set[BlockKey]] = {endpoint: set() for endpoint in pool}
    elsewhere: dict[Endpoint, set[BlockKey]] = {endpoint: set() for endpoint in pool}  # on the CPU, or in the windows
    tier = caches == "gpu+cpu"
    prompts = []
    for _ in range(PROMPTS):
        ids = head + [rng.randrange(32000) for _ in range((blocks - 8) * BLOCK)]
        keys = block_keys(root, ids, BLOCK)
        prompts.append(Known([Chains(len(ids), {BLOCK: keys})]))
        for endpoint in rng.sample(pool, max(1, endpoints // 4)):
            held[endpoint].update(keys[:8])
            elsewhere[endpoint].update(keys[:8])
        for endpoint, share in zip(rng.sample(pool, min(3, endpoints)), (1.0, 0.6, 0.3), strict=False):
            end = int(blocks * share)
            held[endpoint].update(keys[:end])
            elsewhere[endpoint].update(keys[:end] if tier else keys[end - WINDOW - 20 : end - 10 * (share == 0.6)])
        if tier:
            more = rng.choice(pool)
            held[more].update(keys[: blocks // 10])
            elsewhere[more].update(keys)
    for number, endpoint in enumerate(pool):
        await state.take_over(endpoint)
        await state.set_mode(endpoint, 1, Mode.EXACT)
        await state.apply([Delta(Cache(endpoint, BLOCK), 1, 0, 0, stored=list(held[endpoint]))])
        for cache in other_caches(caches, endpoint):
            await state.apply([Delta(cache, 1, 0, 0, stored=list(elsewhere[endpoint]))])
        registry.mark(endpoint, True)
        registry.scraped(endpoint, Gauges(waiting=1, running=4, block_size=BLOCK), Unexplained())
        for request in range(rng.randrange(8)):
            name = ReservationId(f"load-{number}-{request}")
            await state.reserve(name, Candidates([endpoint], [rng.randrange(1, 4000)]))
    hotspots = Hotspots(True, lambda: None, lambda: None)
    chooser = Chooser(rank, state, hotspots, rng, metrics, accounts_contexts=rank in READ_CONTEXTS)
    return chooser, registry.ready(), prompts


async def measure(endpoints: int, caches: str, blocks: int, decisions: int, rank: Rank) -> dict[str, float | str]:
    chooser, ready, prompts = await prepare(endpoints, caches, blocks, Random(1), rank)
    times = []
    for number in range(decisions):
        prompt = prompts[number % len(prompts)]
        started = time.perf_counter()
        chooser.choose(prompt, ready)
        times.append((time.perf_counter() - started) * 1e6)
    times.sort()
    return {
        "endpoints": endpoints,
        "caches": caches,
        "blocks": blocks,
        "p5_us": times[len(times) // 20],
        "p50_us": statistics.median(times),
        "p99_us": times[int(len(times) * 0.99)],
        "mean_us": statistics.fmean(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=CACHES, help="of each endpoint")
    parser.add_argument("--policy", default="lmetric")
    parser.add_argument("--blocks", type=int, default=2048)
    parser.add_argument("--decisions", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [
        asyncio.run(measure(count, caches, options.blocks, options.decisions, policy(options.policy)))
        for count in options.endpoints
        for caches in options.caches
    ]
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{'endpoints':>9} {'caches':>12} {'blocks':>7} {'p5 us':>8} {'p50 us':>8} {'p99 us':>8} {'mean us':>8}")
    for row in rows:
        times = " ".join(f"{row[name]:>8.0f}" for name in ("p5_us", "p50_us", "p99_us", "mean_us"))
        print(f"{row['endpoints']:>9} {row['caches']:>12} {row['blocks']:>7} {times}")
    if options.json:
        options.json.write_text(json.dumps({"machine": platform.machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
