"""The command line of `multipick replay`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multipick_epp.policy.registry import names

from multipick_sim.engine.presets import DEFAULT_PRESET, PRESETS
from multipick_sim.flags import above_zero, policies, seconds, whole
from multipick_sim.outputs import writable
from multipick_sim.replay.processes import cores
from multipick_sim.replay.setup import GAUGES_EVERY_S, Setup
from multipick_sim.replay.study import GENERATED_REQUESTS, Level, Source, Study
from multipick_sim.workloads.generators import GENERATORS, generator

DEFAULT_POLICIES = "lmetric,round-robin,least-request,vllm-v1,linear,dynamo,llm-d"
AUTO = (Level(0.5, True), Level(0.8, True), Level(1.0, True))
MAX_PODS = 512
MAX_SEEDS = 100
MAX_LOAD = 1000.0
"""Times slower or faster: beyond, requests come all at once, or in years, which floats don't tell apart."""
DESCRIPTION = """\
Play the requests of a trace, or of a generator, to a pool of modelled engines under each policy, and compare.

TRACE is a file or folder of JSON lines in Mooncake's format, Bailian's or the picker's own capture, gzipped or not; or
one of: {generators} (hot-prefix:TOKENS:SHARE:ANSWER).
Policies: {policies}, linear:WEIGHT; all."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    study: Study
    jobs: int
    json: Path | None
    report: Path


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; exits with status 2 and a message where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="multipick replay",
        description=DESCRIPTION.format(generators=", ".join(GENERATORS), policies=", ".join(names())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("trace", type=_source, metavar="TRACE", help="a trace, or a generator's name")
    add(
        "--requests",
        type=whole(1, 10**7),
        metavar="N",
        help=f"the first N (default: all; {GENERATED_REQUESTS} made ones)",
    )
    add("--spread", action="store_true", help="requests of one instant come evenly over the trace's next tick")
    add("--policies", type=_policies, default=DEFAULT_POLICIES, metavar="A,B", help="default %(default)s")
    add("--pods", type=whole(1, MAX_PODS), default=16, metavar="N", help="engines (default %(default)s)")
    add(
        "--preset",
        type=_presets,
        default=DEFAULT_PRESET,
        metavar="A,B",
        help=f"what a pod is, of: {', '.join(sorted(PRESETS))}; several: the pods' in turn (default %(default)s)",
    )
    add("--block-size", type=whole(1, 1024), default=16, metavar="N", help="tokens of an engine's block (default 16)")
    add(
        "--load",
        type=_levels,
        default="auto",
        metavar="X,Y",
        help="times the trace's own rate; with a c after it, of round-robin's capacity, which is found first; "
        "auto: 0.5c,0.8c,1c (the default)",
    )
    add("--seeds", type=whole(1, MAX_SEEDS), default=1, metavar="N", help="repeat with N seeds (default 1)")
    add("--closed-loop", action="store_true", help="a turn comes no sooner than the one before it has ended")
    add("--pickers", type=whole(1, 64), default=1, metavar="N", help="pickers that share the requests (default 1)")
    add("--view", choices=("shared", "own"), default="shared", help="of the loads, by each picker (default shared)")
    add("--hits-late", type=seconds, default=0.0, metavar="S", help="KV events are known S seconds late")
    add("--loads-late", type=seconds, default=0.0, metavar="S", help="reserve nothing, and know loads S seconds late")
    add(
        "--gauges-every",
        type=above_zero,
        default=GAUGES_EVERY_S,
        metavar="S",
        help="between two looks at the engines' gauges (default %(default)s)",
    )
    add("--guard", choices=("on", "off"), default="on", help="the hotspot guard of rules that multiply (default on)")
    add("--jobs", type=whole(1, 1024), default=cores(), metavar="N", help="processes (default: %(default)s cores)")
    add("--json", type=writable, metavar="FILE", help="write all figures and curves there")
    add("--report", type=writable, default=Path("replay.html"), metavar="FILE", help="default %(default)s")
    given = parser.parse_args(arguments)
    setup = Setup(
        pods=given.pods,
        preset=given.preset,
        block_size=given.block_size,
        closed_loop=given.closed_loop,
        pickers=given.pickers,
        own_view=given.view == "own",
        hits_late_s=given.hits_late,
        loads_late_s=given.loads_late,
        gauges_every_s=given.gauges_every,
        guard=given.guard == "on",
    )
    source = Source(given.trace, given.requests, given.spread)
    return Options(Study(source, setup, given.policies, given.load, given.seeds), given.jobs, given.json, given.report)


def _source(text: str) -> str:
    try:
        known = Path(text).exists() or generator(text) is not None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not known:
        raise argparse.ArgumentTypeError(f"there is no file or folder {text}, and no generator of that name")
    return text


def _policies(text: str) -> tuple[str, ...]:
    return policies(",".join(names()) if text == "all" else text)


def _presets(text: str) -> str:
    if unknown := [name for name in text.split(",") if name not in PRESETS]:
        raise argparse.ArgumentTypeError(f"no preset {unknown[0]!r}; there are: {', '.join(sorted(PRESETS))}")
    return text


def _levels(text: str) -> tuple[Level, ...]:
    if text == "auto":
        return AUTO
    parts = [part.strip() for part in text.split(",")]
    levels = tuple(Level(above_zero(part.removesuffix("c")), part.endswith("c")) for part in parts)
    if len(set(levels)) < len(levels):
        raise argparse.ArgumentTypeError("a load is named twice")
    if any(not 1 / MAX_LOAD <= level.factor <= MAX_LOAD for level in levels):
        raise argparse.ArgumentTypeError(f"a load is from {1 / MAX_LOAD:g} to {MAX_LOAD:g}")
    return levels
