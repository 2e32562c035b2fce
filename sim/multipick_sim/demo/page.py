"""The demo's figures as the page that `multipick replay` makes, of what the client saw; and how to replay a capture."""

import shlex
from collections.abc import Sequence

from multipick_sim.demo.options import Options
from multipick_sim.demo.report import Outcome
from multipick_sim.replay import outcome as replayed
from multipick_sim.replay.flight import Flight
from multipick_sim.replay.report.page import About, page
from multipick_sim.replay.run import Run
from multipick_sim.replay.setup import Setup
from multipick_sim.traffic.records import Record
from multipick_sim.workloads.workload import Item


def report_page(options: Options, command: str, outcomes: Sequence[Outcome]) -> str:
    """The whole page as text, of the answers that came whole."""
    made = options.trace is None
    load = options.load if made else 1.0
    about = About(
        command=command,
        workload=f"demo: {options.traffic}" if options.trace is None else f"demo: {options.trace.name}",
        requests=max((outcome.figures.requests for outcome in outcomes), default=0),
        left_out=0,
        setup=Setup(pods=options.pods, preset=options.preset, closed_loop=True, guard=options.guard),
        capacity=None,
        levels=[f"{load:g}c" if made else "1"],
        loads=[load],
        seeds=1,
        missing=0,
    )
    runs = [(outcome.policy, _flights(outcome)) for outcome in outcomes]
    found = [
        replayed.outcome(replayed.Arm(policy, load, options.seed), Run(flights, 0, 0), options.pods)
        for policy, flights in runs
        if flights
    ]
    return page(about, found)


def replay_command(options: Options) -> str:
    """What asks of the first policy's capture how it would have gone otherwise."""
    assert options.capture is not None, "nothing was captured"
    arguments = [
        "multipick",
        "replay",
        str(options.capture / options.policies[0]),
        *("--pods", str(max(1, options.pods - 1)), "--preset", options.preset),
        *("--load", f"{1 / options.speed:g}", "--policies", ",".join(dict.fromkeys((*options.policies, "llm-d")))),
    ]
    return shlex.join(arguments)


def _flights(outcome: Outcome) -> list[Flight]:
    rows = {endpoint: row for row, endpoint in enumerate(outcome.endpoints)}
    flights = [
        _flight(record, first_s, rows[record.endpoint])
        for record in outcome.records
        if record.ok and record.endpoint in rows and (first_s := record.first_token_s) is not None
    ]
    return sorted(flights, key=lambda flight: flight.at_s)


def _flight(record: Record, first_s: float, row: int) -> Flight:
    item = Item(record.sent_s, record.prompt_tokens, record.output_tokens, (), record.prompt_tokens)
    return Flight(
        item=item,
        at_s=record.sent_s,
        keys=(),
        prompt_blocks=0,
        row=row,
        predicted_tokens=record.predicted_tokens or 0,
        hit_blocks=0,
        left=0,
        waits=False,
        cached_tokens=record.cached_tokens or 0,
        first_s=first_s,
        end_s=record.end_s,
    )
