"""The engine model beside an independent one: Dynamo's mocker, from the package `ai-dynamo-runtime` (Linux).

The mocker replays the first requests of a Mooncake trace, spread over its ticks, on its own engines; then ours get the
very same requests on the very same pods, with as many blocks, and every request's hit is compared. Latencies are of two
different GPUs, each by its own cost model, and are only shown side by side. Last, Dynamo's router as it is shipped
against our writing of its rule, and LMETRIC, on these engines.

    pip install ai-dynamo-runtime
    python bench/mocker.py TRACE [--requests 2000] [--pods 8] [--json FILE]
"""

import argparse
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from multipick_epp.policy.registry import policy
from multipick_epp.policy.snapshot import Rank, Ranking, Snapshot
from multipick_sim.engine.presets import PRESETS
from multipick_sim.replay.run import Replay
from multipick_sim.replay.setup import Setup
from multipick_sim.workloads.formats import read_workload
from multipick_sim.workloads.workload import Workload

BLOCK_SIZE = 64  # the mocker's default


@dataclass(frozen=True, slots=True)
class Mocked:
    """One request, as the mocker had it."""

    row: int
    hit_tokens: int
    ttft_s: float
    e2e_s: float


def mock(trace: Path, requests: int, workload: Workload, setup: Setup, mode: str) -> Sequence[Mocked]:
    """The mocker's records in the workload's order."""
    os.environ["DYN_LOG"] = "error"
    from dynamo._core import run_mocker_trace_replay  # type: ignore[import-not-found]

    limits = PRESETS[setup.preset].limits(BLOCK_SIZE)
    engine = {
        "num_gpu_blocks": limits.num_gpu_blocks - 1,
        "block_size": BLOCK_SIZE,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
    }
    lines = sorted(map(json.loads, trace.read_text().splitlines()[:requests]), key=lambda line: line["timestamp"])
    for number, (line, item) in enumerate(zip(lines, workload.items, strict=True)):
        line["timestamp"] = round(item.at_s * 1000) + number * 1e-3  # no two at one instant
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        found = run_mocker_trace_replay(
            [file.name],
            extra_engine_args={"engine": engine},
            num_workers=setup.pods,
            trace_block_size=workload.block_tokens,
            router_mode=mode,
            capture_per_request=True,
        )
    by_shape: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for record in sorted(found.per_request, key=lambda record: -record["arrival_time_ms"]):
        by_shape[record["input_length"], record["output_length"]].append(record)
    records = [by_shape[item.prompt_tokens, item.output_tokens].pop() for item in workload.items]
    return [
        Mocked(
            record["decode_worker_idx"],
            record["reused_input_tokens"],
            record["ttft_ms"] / 1000,
            record["e2e_latency_ms"] / 1000,
        )
        for record in records
    ]


def given(rows: Sequence[int]) -> Rank:
    """A policy that does what somebody else has decided."""

    def rank(snapshot: Snapshot, rng: Random) -> Ranking:
        return Ranking([rows[snapshot.turn]])

    return rank


def compare(name: str, workload: Workload, setup: Setup, mocked: Sequence[Mocked], rank: Rank) -> dict[str, Any]:
    flights = Replay(workload, rank, setup, 1.0, 0).run().flights
    prompt = sum(item.prompt_tokens for item in workload.items)
    pairs = list(zip(flights, mocked, strict=True))
    row: dict[str, Any] = {
        "case": name,
        "requests": len(flights),
        "same hit": fmean(ours.cached_tokens == theirs.hit_tokens for ours, theirs in pairs),
        "hit rate, mocker": sum(theirs.hit_tokens for theirs in mocked) / prompt,
        "hit rate, ours": sum(ours.cached_tokens for ours in flights) / prompt,
        "TTFT mean ms, mocker": fmean(theirs.ttft_s for theirs in mocked) * 1000,
        "TTFT mean ms, ours": fmean(ours.first_s - ours.at_s for ours in flights) * 1000,
        "E2E mean s, mocker": fmean(theirs.e2e_s for theirs in mocked),
        "E2E mean s, ours": fmean(ours.end_s - ours.at_s for ours in flights),
    }
    print(
        ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--pods", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setup = Setup(pods=options.pods, block_size=BLOCK_SIZE)
    workload = read_workload(options.trace, options.requests).spread()
    rows = []
    for mode in ("round_robin", "kv_router"):
        mocked = mock(options.trace, options.requests, workload, setup, mode)
        rows.append(compare(f"{mode}, same pods", workload, setup, mocked, given([each.row for each in mocked])))
    rows += [compare(f"kv_router by {name}", workload, setup, mocked, policy(name)) for name in ("dynamo", "lmetric")]
    if options.json:
        options.json.write_text(json.dumps({"pods": options.pods, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
