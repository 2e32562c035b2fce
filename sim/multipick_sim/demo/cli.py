"""`multipick demo`: plan, run each policy, report."""

import asyncio
import json
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from multipick_sim.demo.display import display
from multipick_sim.demo.options import Options, parse
from multipick_sim.demo.page import replay_command, report_page
from multipick_sim.demo.report import Outcome, as_json, remarks, table, verdict
from multipick_sim.demo.run import run
from multipick_sim.demo.stack import StackError
from multipick_sim.replay.capacity import full_load
from multipick_sim.replay.setup import Setup
from multipick_sim.traffic import made
from multipick_sim.traffic.mooncake import TraceError, read_trace
from multipick_sim.traffic.plan import Session, request_count
from multipick_sim.workloads.generators import generator

BELOW_TABLE = "the same requests under each policy, caches empty at its start; times are the simulated engines'"
CAPACITY_OF = 1000  # requests: so many tell what pods can carry
ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def command(arguments: Sequence[str]) -> int:
    """Run the demo. 0: done, whoever won; 1: a part or a request failed; 2: wrong usage; 128 + n: ended by signal n."""
    options = parse(arguments)
    try:
        sessions = plan(options)
    except TraceError as error:
        print(f"multipick demo: {error}", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_signal(options, sessions, shlex.join(["multipick", "demo", *arguments])))


def plan(options: Options) -> tuple[Session, ...]:
    """The requests to send. Raises TraceError for a trace that can't be read."""
    if options.trace:
        return read_trace(options.trace, options.requests)
    make = generator(options.traffic)
    assert make is not None, "checked with the command line"
    workload = make(options.requests, options.seed)
    capacity = full_load(workload.first(CAPACITY_OF), Setup(pods=options.pods, preset=options.preset))
    return made.plan(workload, options.load * capacity, options.seed)


class _Output(Console):
    """Tells where nobody reads it any more (`| head`)."""

    def __init__(self, unread: Callable[[], None]) -> None:
        super().__init__()
        self._unread = unread

    def on_broken_pipe(self) -> None:
        """Called by each print in vain."""
        self._unread()


async def _until_signal(options: Options, sessions: tuple[Session, ...], command_line: str) -> int:
    """The demo, which the first signal ends in good order; further ones are ignored while it cleans up.

    An output that nobody reads any more is such a signal, SIGPIPE.
    """
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        if not received:
            received.append(number)
            work.cancel()

    console = _Output(lambda: end(signal.SIGPIPE))
    work = asyncio.create_task(_demo(options, sessions, command_line, console))
    for number in ENDED_BY:
        loop.add_signal_handler(number, end, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]


async def _demo(options: Options, sessions: tuple[Session, ...], command_line: str, console: Console) -> int:
    folder = Path(tempfile.mkdtemp(prefix="multipick-demo-"))
    keep = True
    try:
        with display(console) as shown:
            outcomes = [await run(policy, sessions, options, folder, shown) for policy in options.policies]
        keep = any(outcome.figures.failed for outcome in outcomes)
        try:
            _write(options, sessions, command_line, outcomes)
        finally:
            _tell(console, options, outcomes)
    except StackError as error:
        print(f"multipick demo: {error}", file=sys.stderr)
    except asyncio.CancelledError:
        keep = False
        raise
    finally:
        if keep:
            print(f"multipick demo: the logs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return 1 if keep else 0


def _tell(console: Console, options: Options, outcomes: Sequence[Outcome]) -> None:
    console.print(table(outcomes))
    lines = [line for outcome in outcomes for line in remarks(outcome)]
    for line in (BELOW_TABLE, *lines, verdict(outcomes)):
        _say(console, line)
    if options.capture:
        _say(console, f"captured: {options.capture}; the same on a pod less, and under another policy:")
        _say(console, replay_command(options))
    _say(console, f"report: {options.report}")


def _write(options: Options, sessions: tuple[Session, ...], command_line: str, outcomes: Sequence[Outcome]) -> None:
    if options.json:
        setup = {
            "traffic": options.trace.name if options.trace else options.traffic,
            "load": None if options.trace else options.load,
            "requests": request_count(sessions),
            "sessions": len(sessions),
            "pods": options.pods,
            "preset": options.preset,
            "speed": options.speed,
            "seed": options.seed,
        }
        options.json.write_text(json.dumps(as_json(setup, outcomes), indent=2) + "\n")
    options.report.write_text(report_page(options, command_line, outcomes), encoding="utf-8")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
