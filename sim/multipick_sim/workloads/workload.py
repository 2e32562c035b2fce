"""A workload as plain values: requests whose prompts are chains of blocks, named by numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

NOBODY = -1


class Item(NamedTuple):
    """One request. (A tuple: a trace has a million.)"""

    at_s: float  # since the workload began
    prompt_tokens: int
    output_tokens: int
    prefixes: Sequence[int]  # one a block, counted from the prompt's first token; equal numbers are equal prefixes
    known_tokens: int  # how far `prefixes` hold: the prompt, or the answer too, where the next turn tells what it was
    after: int = NOBODY  # the request of the turn before, which it follows in a closed loop


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order in which they come."""

    name: str
    block_tokens: int
    items: Sequence[Item]

    @property
    def span_s(self) -> float:
        """From the first request to the last."""
        return self.items[-1].at_s - self.items[0].at_s if self.items else 0.0

    def first(self, requests: int) -> "Workload":
        """Its first requests."""
        return replace(self, items=self.items[:requests])

    def spread(self) -> "Workload":
        """Requests of one instant spread evenly until the clock's next tick.

        For a trace whose clock is coarse: Mooncake's ticks every 3 s, so that up to 28 requests come at one instant,
        which nobody's traffic does. A tick is the shortest time between two instants of the trace.
        """
        instants = sorted({item.at_s for item in self.items})
        tick = min((after - before for before, after in pairwise(instants)), default=0.0)
        left = _counts(self.items)
        size = dict(left)
        items = []
        for item in self.items:
            place = size[item.at_s] - left[item.at_s]
            left[item.at_s] -= 1
            items.append(item._replace(at_s=item.at_s + tick * place / size[item.at_s]))
        return replace(self, name=f"{self.name}, spread", items=items)

    def fitting(self, max_tokens: int) -> "Workload":
        """Without the requests that an engine with so many tokens of context refuses."""
        kept: dict[int, int] = {}
        items: list[Item] = []
        for number, item in enumerate(self.items):
            if item.prompt_tokens + item.output_tokens <= max_tokens:
                kept[number] = len(items)
                items.append(item._replace(after=kept.get(item.after, NOBODY)))
        return replace(self, items=items)


class Prefixes:
    """Ids of blocks -> numbers of prefixes: equal numbers if and only if all ids up to there are equal."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int | str], int] = {}

    def number(self, ids: Iterable[int | str]) -> Sequence[int]:
        """One number an id."""
        numbers, parent, found = self._numbers, -1, []
        for each in ids:
            parent = numbers.setdefault((parent, each), len(numbers))
            found.append(parent)
        return found


def _counts(items: Sequence[Item]) -> dict[float, int]:
    counts: dict[float, int] = {}
    for item in items:
        counts[item.at_s] = counts.get(item.at_s, 0) + 1
    return counts
