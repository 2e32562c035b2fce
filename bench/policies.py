"""Every policy on the same requests, in simulated time: the tables of docs/evaluation.md.

Parts: the conversation trace spread over its ticks, as it is, and whole; hot prefixes with the hotspot guard on and
off; made workloads; knowledge that is late or not shared; unequal pods; `marginal` beside `lmetric` on other pools,
loads and knowledge. Ratios are to `lmetric` on the same requests and seed, with a 95 % interval over seeds. A part's
result is written as soon as it is there, in the place of an earlier one in the file; Ctrl-C keeps what is done.

    python bench/policies.py TRACE [--requests 1600] [--parts spread whole hot ...] [--jobs 1] [--json FILE]
    python bench/policies.py TRACE --parts whole --policies lmetric linear --seeds 1        # less of it
"""

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from multipick_epp.policy.registry import BUILT_IN
from multipick_sim.replay.outcome import Arm, Outcome
from multipick_sim.replay.processes import run_study
from multipick_sim.replay.setup import Setup
from multipick_sim.replay.study import Level, Source, Study, capacity_of
from multipick_sim.replay.summary import Mean, rows
from multipick_sim.replay.table import table

ALL = tuple(BUILT_IN)
WEIGHTS = tuple(f"linear:{weight}" for weight in (0.1, 0.3, 0.7, 0.9))
MAIN = ("lmetric", "marginal", "round-robin", "vllm-v1", "linear", "dynamo", "llm-d", "lmetric-no-queue")
STEADY = ("round-robin", "vllm-v1", "vllm-032", "dualmap", "preble")
"""Policies that break no ties by chance: on a trace, which is the same for every seed, one seed says it all."""
OURS = ("lmetric", "marginal")
UNEQUAL = ("lmetric", "lmetric-seconds", "marginal", "linear", "dynamo", "vllm-v1", "least-request", "round-robin")
THREE = (Level(0.5, True), Level(0.8, True), Level(1.0, True))
ONE = (Level(0.9, True),)
BUSY = (Level(0.9, True), Level(1.2, True))
FIVE = (Level(0.3, True), *THREE, Level(1.2, True))
OWN = (Level(1.0),)
HOT = ("hot-prefix:16384:0.5:800", "hot-prefix:61440:0.3:400", "hot-prefix:4096:0.8:3000", "hot-prefix:102400:0.6:400")
CLOSE = 12  # seeds where two percent matter: six of `mixed` have said +2.3 and -1.3 %
COARSE = 64  # tokens a block of the engines where many runs are made: a third of the time, hardly other figures
KNOWLEDGE = {
    "exact": Setup(block_size=COARSE),
    "events 0.05 s late": Setup(block_size=COARSE, hits_late_s=0.05),
    "events 0.2 s late": Setup(block_size=COARSE, hits_late_s=0.2),
    "events 1 s late": Setup(block_size=COARSE, hits_late_s=1.0),
    "all 0.05 s late, no reservation": Setup(block_size=COARSE, hits_late_s=0.05, loads_late_s=0.05),
    "all 0.2 s late, no reservation": Setup(block_size=COARSE, hits_late_s=0.2, loads_late_s=0.2),
    "all 1 s late, no reservation": Setup(block_size=COARSE, hits_late_s=1.0, loads_late_s=1.0),
    "4 pickers, each by its own loads": Setup(block_size=COARSE, pickers=4, own_view=True),
}
MADE = ("chat", "api", "agent", "mixed")
POOLS = {
    "4 pods": Setup(block_size=COARSE, pods=4),
    "8 pods": Setup(block_size=COARSE, pods=8),
    "32 pods": Setup(block_size=COARSE, pods=32),
    "a10-qwen2.5-7b": Setup(block_size=COARSE, preset="a10-qwen2.5-7b"),
    "h100-qwen3-32b-tp2": Setup(block_size=COARSE, preset="h100-qwen3-32b-tp2"),
    "h100-llama-3.3-70b-tp8": Setup(block_size=COARSE, preset="h100-llama-3.3-70b-tp8"),
    "half of the pods A100": Setup(block_size=COARSE, preset="h100-llama-3.1-8b,a100-llama-3.1-8b"),
    "events 1 s late": KNOWLEDGE["events 1 s late"],
    "all 0.2 s late, no reservation": KNOWLEDGE["all 0.2 s late, no reservation"],
    "4 pickers, each by its own loads": KNOWLEDGE["4 pickers, each by its own loads"],
}


@dataclass(frozen=True, slots=True)
class Part:
    """One study with a name."""

    name: str
    kind: str
    study: Study


def parts(trace: str, requests: int) -> Iterator[Part]:
    """All of them, the most asked for first."""
    spread = Source(trace, requests, spread=True)
    yield Part("conversation, spread", "spread", Study(spread, Setup(), (*ALL, *WEIGHTS), THREE, 3))
    whole = replace(spread, requests=None)
    yield Part(
        "conversation, spread, whole", "whole", Study(whole, Setup(block_size=COARSE), (*ALL, *WEIGHTS), THREE, 3)
    )
    for name in HOT:
        for guard in (False, True):
            made = Study(Source(name, 2500), Setup(block_size=COARSE, guard=guard), OURS, OWN, 6)
            yield Part(f"{name}, guard {'on' if guard else 'off'}", "hot", made)
    for name in MADE:
        yield Part(name, "made", Study(Source(name, 1500), Setup(block_size=COARSE), ALL, ONE, 3))
    for name, setup in KNOWLEDGE.items():
        policies = ("lmetric", "lmetric-no-queue", "least-request")
        yield Part(name, "knowledge", Study(spread, setup, policies, ONE, 3))
    unequal = POOLS["half of the pods A100"]
    yield Part("conversation, half of the pods A100", "unequal", Study(spread, unequal, UNEQUAL, ONE, 3))
    ticks = replace(spread, spread=False)
    yield Part("conversation, as it is", "ticks", Study(ticks, Setup(block_size=COARSE), MAIN, THREE, 3))
    yield Part("conversation", "marginal", Study(spread, Setup(block_size=COARSE), OURS, FIVE, CLOSE))
    for name, setup in POOLS.items():
        yield Part(f"conversation, {name}", "marginal", Study(spread, setup, OURS, ONE, CLOSE))
    for name in MADE:
        yield Part(name, "marginal", Study(Source(name, 1500), Setup(block_size=COARSE), OURS, BUSY, CLOSE))


def ratios(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Each policy's mean TTFT, TPOT and E2E by lmetric's on the same requests."""
    ours = {(each.arm.load, each.arm.seed): each for each in outcomes if each.arm.policy == "lmetric"}
    groups: dict[tuple[float, str], list[tuple[Outcome, Outcome]]] = {}
    for each in outcomes:
        if our := ours.get((each.arm.load, each.arm.seed)):  # else it was interrupted before
            groups.setdefault((each.arm.load, each.arm.policy), []).append((each, our))
    return [
        {
            "policy": policy,
            "load": load,
            "ttft": asdict(Mean.of([its.ttft_s.mean / our.ttft_s.mean for its, our in pairs])),
            "tpot": asdict(Mean.of([_tpot(its) / _tpot(our) for its, our in pairs])),
            "e2e": asdict(Mean.of([its.e2e_s.mean / our.e2e_s.mean for its, our in pairs])),
        }
        for (load, policy), pairs in groups.items()
    ]


def _tpot(outcome: Outcome) -> float:
    assert outcome.tpot_s is not None, "every workload here has answers of several tokens"
    return outcome.tpot_s.mean


def run(part: Part, jobs: int) -> tuple[dict[str, Any], bool]:
    """The figures, of what was done by then where it is interrupted; and whether it was."""
    capacity = capacity_of(part.study) if part.study.needs_capacity else None
    arms = [arm for arm in part.study.arms(capacity) if arm.seed == 0 or not _says_it_all(part.study, arm)]
    outcomes: list[Outcome] = []
    interrupted = False
    try:
        for outcome in run_study(part.study, arms, jobs, lambda share: None):
            outcomes.append(outcome)  # noqa: PERF402 - an interrupt keeps what has come
    except KeyboardInterrupt:
        if not outcomes:
            raise
        interrupted = True
    summary = rows(sorted(outcomes, key=lambda each: arms.index(each.arm)))
    print(f"\n== {part.name}", flush=True)
    for line in table(summary, lambda load: f"{load / capacity:.2f} of capacity" if capacity else f"{load:g}"):
        print(line, flush=True)
    result = {
        "part": part.name,
        "kind": part.kind,
        "requests": outcomes[0].requests,
        "seeds": max(row.seeds for row in summary),
        "capacity": capacity,
        "setup": asdict(part.study.setup),
        "rows": [asdict(row) for row in summary],
        "by_lmetric": ratios(outcomes),
    }
    return result, interrupted


def _says_it_all(study: Study, arm: Arm) -> bool:
    """Whether any other seed would give the same."""
    return arm.policy in STEADY and not study.source.depends_on_seed and not study.setup.own_view


def main() -> None:
    kinds = ("spread", "whole", "hot", "made", "knowledge", "unequal", "ticks", "marginal")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", help="Mooncake's conversation trace")
    parser.add_argument("--requests", type=int, default=1600, help="the first so many of it (12,031)")
    parser.add_argument("--parts", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--policies", nargs="+", help="of each part these alone; lmetric must be among them")
    parser.add_argument("--seeds", type=int, help="fewer or more than each part has")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for part in parts(options.trace, options.requests):
        if part.kind in options.parts:
            result, interrupted = run(_reduced(part, options.policies, options.seeds), options.jobs)
            if options.json:
                _keep(options.json, result)
            if interrupted:
                break


def _reduced(part: Part, policies: Sequence[str] | None, seeds: int | None) -> Part:
    study = part.study
    chosen = [each for each in study.policies if policies is None or each in policies]
    return replace(part, study=replace(study, policies=chosen, seeds=seeds or study.seeds))


def _keep(file: Path, result: dict[str, Any]) -> None:
    """One part a line, five digits a figure."""
    before = json.loads(file.read_text())["parts"] if file.exists() else []
    parts = [*(part for part in before if (part["kind"], part["part"]) != (result["kind"], result["part"])), result]
    lines = ",\n".join(json.dumps(_rounded(part)) for part in parts)
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    file.write_text(f'{{"machine": "{machine}", "parts": [\n{lines}\n]}}\n')


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
