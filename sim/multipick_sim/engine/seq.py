"""A request inside the engine, and the agenda that says in which step it needs more than one decoded token."""

from dataclasses import dataclass, field
from heapq import heappop, heappush

from multipick_sim.engine.values import Request

NEVER = -1


@dataclass(slots=True, eq=False)
class Seq:
    """A request's blocks and progress.

    While it decodes, one token comes out of each step, so nothing is written: progress follows from the step's number.
    """

    request: Request
    order: int = NEVER  # of admission; the highest of the running ones is preempted first
    blocks: list[int] = field(default_factory=list)
    cached: int = 0  # leading blocks that are in the prefix cache
    computed: int = 0  # tokens with KV, until decoding starts
    generated: int = 0  # tokens sampled, until decoding starts
    decodes_from: int = NEVER  # the first step that decodes
    due: int = NEVER  # the step for which the agenda holds it
    preemptions: int = 0

    def generated_before(self, step: int) -> int:
        """Tokens sampled in the steps before `step`."""
        return self.generated + (step - self.decodes_from) if self.decodes_from != NEVER else self.generated

    def position(self, step: int) -> int:
        """Place of the token that a decoding request computes in `step`: the last one sampled before."""
        return self.request.prompt_tokens + self.generated + step - self.decodes_from - 1

    def last_step(self) -> int:
        """The step that samples the last token of a decoding request."""
        return self.decodes_from + self.request.output_tokens - self.generated - 1


class Agenda:
    """Which decoding requests take a block, fill a block or end in which step.

    Invariant: a decoding request is listed under its `due`, with its `order`; any other entry is stale and skipped, so
    that a preempted request need not be searched for.
    """

    def __init__(self) -> None:
        self._steps: list[int] = []  # heap of the keys of `_entries`
        self._entries: dict[int, list[tuple[int, Seq]]] = {}

    def add(self, seq: Seq, step: int) -> None:
        """List `seq` under `step`, from now on its only valid entry."""
        seq.due = step
        entries = self._entries.get(step)
        if entries is None:
            self._entries[step] = entries = []
            heappush(self._steps, step)
        entries.append((seq.order, seq))

    def take(self, step: int) -> list[tuple[int, Seq]]:
        """Entries of `step`, in order of admission. `is_valid` tells the stale ones, at the time they are looked at."""
        if not self._steps or self._steps[0] != step:
            return []
        heappop(self._steps)
        return sorted(self._entries.pop(step))

    def next_step(self) -> int | None:
        """The next step with an entry, which may be stale."""
        return self._steps[0] if self._steps else None


def is_valid(order: int, seq: Seq, step: int) -> bool:
    """Whether an agenda's entry still holds: the request was neither preempted nor aborted since."""
    return seq.order == order and seq.due == step
