"""The command line of `multipick demo`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from multipick_epp.policy.registry import names, policy

from multipick_sim.engine.presets import PRESETS

MAX_REQUESTS = 100_000
MAX_PODS = 64  # processes on one machine
MAX_SPEED = 1000.0
DEFAULT_PRESET = "h100-llama-3.3-70b-tp8"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    trace: Path | None
    requests: int
    pods: int
    policies: tuple[str, ...]
    speed: float
    seed: int
    preset: str
    json: Path | None


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; exits with status 2 and a message where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="multipick demo",
        description="Start Envoy, Valkey, a picker and simulated pods on this machine, send them the same requests "
        "under each policy, and compare.",
    )
    add = parser.add_argument
    add("--trace", type=_readable, metavar="FILE", help="a Mooncake-format trace to send instead of built-in chats")
    add("--requests", type=_whole(MAX_REQUESTS), default=300, metavar="N", help="how many (default %(default)s)")
    add("--pods", type=_whole(MAX_PODS), default=4, metavar="N", help="simulated pods (default %(default)s)")
    add(
        "--policies",
        type=_policies,
        default="lmetric,round-robin",
        metavar="A,B",
        help=f"of: {', '.join(names())} (default %(default)s)",
    )
    add("--speed", type=_speed, default=1.0, metavar="X", help="engine seconds a second (default %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the built-in chats (default %(default)s)")
    add("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET, help="what a pod is (default %(default)s)")
    add("--json", type=_writable, metavar="FILE", help="write all figures there")
    return Options(**vars(parser.parse_args(arguments)))


def _whole(high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {high}")
        return int(text)

    return read


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= MAX_SPEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, up to {MAX_SPEED}")
    return speed


def _policies(text: str) -> tuple[str, ...]:
    policies = tuple(part.strip() for part in text.split(","))
    for each in policies:
        try:
            policy(each)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    if len(set(policies)) < len(policies):
        raise argparse.ArgumentTypeError("a policy is named twice")
    return policies


def _readable(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _writable(text: str) -> Path:
    """Checked before the runs: minutes of figures should not be lost to a mistyped folder."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"no file can be written at {text}")
    return path
