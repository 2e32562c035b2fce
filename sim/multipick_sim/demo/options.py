"""The command line of `multipick demo`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multipick_epp.policy.registry import names

from multipick_sim.engine.presets import PRESETS
from multipick_sim.flags import policies, up_to, whole
from multipick_sim.outputs import empty_folder, writable
from multipick_sim.workloads.generators import GENERATORS, generator

MAX_REQUESTS = 100_000
MAX_PODS = 64  # processes on one machine
MAX_SPEED = 1000.0
MAX_LOAD = 10.0
DEFAULT_TRAFFIC = "mixed"
DEFAULT_PRESET = "h100-llama-3.3-70b-tp8"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    trace: Path | None  # sent instead of `traffic`
    traffic: str
    load: float  # of made traffic, in what round-robin could carry
    requests: int
    pods: int
    policies: tuple[str, ...]
    guard: bool  # the hotspot guard
    shadow: tuple[str, ...]  # policies that are asked beside each decision
    speed: float
    seed: int
    preset: str
    json: Path | None
    report: Path
    capture: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; exits with status 2 and a message where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="multipick demo",
        description="Start Envoy, Valkey, a picker and simulated pods on this machine, send them the same requests "
        "under each policy, and compare.",
    )
    add = parser.add_argument
    add("--trace", type=_readable, metavar="FILE", help="a Mooncake-format trace to send instead of made traffic")
    add(
        "--traffic",
        type=_generator,
        default=DEFAULT_TRAFFIC,
        metavar="NAME",
        help=f"what is made: {', '.join(GENERATORS)} (default %(default)s)",
    )
    add(
        "--load",
        type=up_to(MAX_LOAD),
        default=0.6,
        metavar="X",
        help="of made traffic, in what round-robin could carry (default %(default)s)",
    )
    add("--requests", type=whole(1, MAX_REQUESTS), default=300, metavar="N", help="how many (default %(default)s)")
    add("--pods", type=whole(1, MAX_PODS), default=4, metavar="N", help="simulated pods (default %(default)s)")
    add(
        "--policies",
        type=policies,
        default="lmetric,round-robin",
        metavar="A,B",
        help=f"of: {', '.join(names())} (default %(default)s)",
    )
    add(
        "--speed",
        type=up_to(MAX_SPEED),
        default=1.0,
        metavar="X",
        help="engine time a second (default %(default)s)",
    )
    add("--guard", choices=("on", "off"), default="on", help="the hotspot guard of policies that multiply (default on)")
    add("--shadow", type=policies, default=(), metavar="A,B", help="policies that pickers ask beside, and what of it")
    add("--seed", type=int, default=0, metavar="N", help="of the made traffic (default %(default)s)")
    add("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET, help="what a pod is (default %(default)s)")
    add("--json", type=writable, metavar="FILE", help="write all figures there")
    add("--report", type=writable, default=Path("demo.html"), metavar="FILE", help="a page (default %(default)s)")
    add("--capture", type=empty_folder, metavar="FOLDER", help="let each picker capture its traffic there, for replay")
    given = vars(parser.parse_args(arguments))
    return Options(**given | {"guard": given["guard"] == "on"})


def _generator(text: str) -> str:
    try:
        found = generator(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found is None:
        raise argparse.ArgumentTypeError(f"no traffic {text!r}; there is: {', '.join(GENERATORS)}")
    return text


def _readable(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path
