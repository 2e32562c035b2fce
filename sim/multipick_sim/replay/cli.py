"""`multipick replay`: a study, its table, its JSON and its report."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict

from multipick_sim.replay.options import Options, parse
from multipick_sim.replay.outcome import Arm, Outcome
from multipick_sim.replay.processes import run_study
from multipick_sim.replay.report.page import About, page
from multipick_sim.replay.study import StudyError, capacity_of, in_order
from multipick_sim.replay.summary import rows
from multipick_sim.replay.table import table
from multipick_sim.workloads.formats import TraceError

LINE_EVERY_S = 5.0  # where stderr is no terminal


def command(arguments: Sequence[str]) -> int:
    """Run a study. 0: done; 1: it can't be run; 130: interrupted, and what was done by then is reported."""
    options = parse(arguments)
    try:
        return _study(options, shlex.join(["multipick", "replay", *arguments]))
    except (TraceError, StudyError, ValueError) as error:
        print(f"multipick replay: {error}", file=sys.stderr)
        return 1


def _study(options: Options, command_line: str) -> int:
    study = options.study
    workload, left_out = study.source.workload(0, study.setup.max_tokens)
    say = _progress()

    def progress(share: float) -> None:
        say(f"{len(found)} of {len(arms)} runs", share)

    capacity = None
    interrupted = False
    arms: Sequence[Arm] = ()
    found: list[Outcome] = []
    try:
        if study.needs_capacity:
            say("how much round-robin can carry", 0.0)
            capacity = capacity_of(study)
        arms = study.arms(capacity)
        with closing(
            run_study(study, arms, options.jobs, lambda share: say(f"{len(found)} of {len(arms)} runs", share))
        ) as runs:
            for outcome in runs:
                found.append(outcome)  # noqa: PERF402 - an interrupt keeps what has come
    except KeyboardInterrupt:
        interrupted = True
    finally:
        say("", 1.0)
    outcomes = in_order(found, arms)
    about = About(
        command=command_line,
        workload=workload.name,
        requests=len(workload.items),
        left_out=left_out,
        setup=study.setup,
        capacity=capacity,
        levels=[str(level) for level in study.levels],
        loads=list(dict.fromkeys(arm.load for arm in arms)),
        seeds=study.seeds,
        missing=len(arms) - len(outcomes),
    )
    if outcomes:
        try:
            _write(options, about, outcomes)
        finally:
            _tell(options, about, outcomes)
    if interrupted:
        print(f"interrupted: {len(outcomes)} of {len(arms)} runs were done", file=sys.stderr)
    return 130 if interrupted else 0


def _write(options: Options, about: About, outcomes: Sequence[Outcome]) -> None:
    if options.json:
        figures = {
            "about": asdict(about),
            "rows": [asdict(row) for row in rows(outcomes)],
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    options.report.write_text(page(about, outcomes), encoding="utf-8")


def _tell(options: Options, about: About, outcomes: Sequence[Outcome]) -> None:
    summary = rows(outcomes)
    print(f"{about.workload}: {about.requests} requests, {about.setup.pods} pods {about.setup.preset}", end="")
    print(f"; {about.left_out} requests too long for them left out" if about.left_out else "")
    for line in table(summary, about.label):
        print(line)
    for row in summary:
        if row.hot.value:
            print(
                f"{row.policy} at {about.label(row.load)}: {row.hot.value:.0f} requests of a class more popular than "
                f"cached, {row.avoided.value:.0f} sent elsewhere by the hotspot guard"
            )
    print(f"\nreport: {options.report}")


def _progress() -> Callable[[str, float], None]:
    """A line on stderr that says how far it is: rewritten on a terminal, else a new one every `LINE_EVERY_S`."""
    begun = told = time.monotonic()
    terminal = os.isatty(sys.stderr.fileno()) if _has_fileno() else False

    def say(what: str, share: float) -> None:
        nonlocal told
        now = time.monotonic()
        left = f", {(now - begun) * (1 - share) / share:.0f} s left" if share > 0.02 else ""
        line = f"{what}: {share:.0%} done{left}" if what else ""
        if terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif line and now - told >= LINE_EVERY_S:
            told = now
            print(line, file=sys.stderr, flush=True)

    return say


def _has_fileno() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError):
        return False
    return True
