"""What a pool can do: how fast round-robin gets through a workload that comes all at once."""

from multipick_sim.engine.values import Request
from multipick_sim.replay.keys import key_maker
from multipick_sim.replay.setup import Setup
from multipick_sim.workloads.workload import Workload


def full_load(workload: Workload, setup: Setup) -> float:
    """The load at which the workload's requests come in the time that a round-robin flood of them takes.

    One engine after another, since under a flood they know nothing of each other.
    """
    keys = key_maker(workload.block_tokens, setup.block_size)
    makespan = 0.0
    for row, engine in enumerate(setup.engines()):
        for number, item in enumerate(workload.items[row :: setup.pods]):
            blocks = keys(item.prefixes, item.known_tokens, item.prompt_tokens + item.output_tokens)
            engine.submit(Request(str(number), item.prompt_tokens, item.output_tokens, blocks), 0.0)
        engine.advance(float("inf"))
        makespan = max(makespan, engine.now)
    return workload.span_s / makespan if makespan and workload.span_s else 1.0
