"""One request on its way through a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from multipick_sim.workloads.workload import Item

NEVER = -1.0


@dataclass(slots=True, eq=False)
class Flight:
    """Where a request went, and what became of it. Times are seconds of the run."""

    item: Item
    at_s: float
    keys: Sequence[int]  # block keys of the prompt's full blocks, then of the answer's
    prompt_blocks: int  # full blocks of the prompt: the first of `keys`
    row: int  # of the endpoint
    predicted_tokens: int  # the hit that the picker foresaw
    hit_blocks: int  # the same in blocks
    left: int  # prompt tokens that are still queued, as far as the picker knows; 0 after the first token
    waits: bool = True  # for its first token, as far as the picker knows
    cached_tokens: int = 0  # the hit that the engine found
    first_s: float = NEVER
    end_s: float = NEVER

    @property
    def uncached_tokens(self) -> int:
        """What was charged for it."""
        return max(1, self.item.prompt_tokens - self.predicted_tokens)
