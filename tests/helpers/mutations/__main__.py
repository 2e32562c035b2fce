"""Sends mutated requests to a picker, and prints what became of them.

make mutations ARGS="[--count N] [--seed N] [--model FOLDER]"
"""

import argparse
import asyncio
import sys
from pathlib import Path

from .bodies import mutated
from .picks import DEADLINE_S, send


def main() -> int:
    """1 where an exception left a parser, or a request got no endpoint."""
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[2] / "fixtures" / "tiny-model")
    options = parser.parse_args()
    outcome = asyncio.run(send(mutated(options.count, options.seed), options.model))
    for reason, number in outcome.read.most_common():
        print(f"{number:8} {reason}")
    times = sorted(outcome.seconds)
    late = sum(seconds > DEADLINE_S for seconds in times)
    half, most = times[len(times) // 2] * 1e3, times[-1] * 1e3
    print(f"{len(times)} picks: p50 {half:.2f} ms, max {most:.0f} ms, {late} past {DEADLINE_S} s")
    print(f"raised {len(outcome.raised)}, no endpoint {len(outcome.unpicked)}, blind: {dict(outcome.blind)}")
    for sent, error in outcome.raised[:5]:
        print(f"{sent.path} {sent.body[:200]!r}: {error!r}")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
