"""What the generators are made of: numbers for blocks, and a session that grows turn by turn."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from multipick_sim.workloads.workload import NOBODY, Item

BLOCK_TOKENS = 16
NOMINAL_FIRST_S = 0.5  # what an answer is assumed to take, when it is decided when the next turn comes
NOMINAL_TOKEN_S = 0.02


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, drawn log-uniformly: short ones are more frequent, as in real chats."""

    low: int
    high: int

    def draw(self, random: Random) -> int:
        """One number."""
        return round(self.low * math.pow(self.high / self.low, random.random()))


@dataclass(frozen=True, slots=True)
class Head:
    """A text that many prompts begin with."""

    tokens: int
    blocks: tuple[int, ...]  # full ones


class Blocks:
    """Numbers that nobody else has."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def head(self, tokens: int) -> Head:
        """A new head."""
        return Head(tokens, tuple(self.take(tokens // BLOCK_TOKENS)))

    def take(self, count: int) -> Iterator[int]:
        """So many new numbers."""
        return itertools.islice(self._numbers, count)


class Session:
    """One conversation: each prompt is all that was said before, answers included, and something new."""

    def __init__(self, blocks: Blocks, head: Head, at_s: float) -> None:
        self.tokens = head.tokens
        self.at_s = at_s  # of the next turn
        self._blocks = blocks
        self._prefixes = list(head.blocks)
        self._turns: list[Item] = []

    def ask(self, new_tokens: int, answer_tokens: int, pause_s: float = 0.0) -> None:
        """One turn; the next comes `pause_s` after its answer would nominally end."""
        prompt = self.tokens + new_tokens
        self.tokens = prompt + answer_tokens
        needed = -(-self.tokens // BLOCK_TOKENS)
        self._prefixes += self._blocks.take(needed - len(self._prefixes))
        self._turns.append(Item(self.at_s, prompt, answer_tokens, tuple(self._prefixes), self.tokens))
        self.at_s += NOMINAL_FIRST_S + NOMINAL_TOKEN_S * answer_tokens + pause_s

    @property
    def turns(self) -> list[Item]:
        """What was asked, in order."""
        return self._turns


def merged(sessions: list[Session], requests: int) -> list[Item]:
    """The first `requests` turns of all sessions by time; each names the turn before it."""
    turns = [
        (turn.at_s, number, place) for number, each in enumerate(sessions) for place, turn in enumerate(each.turns)
    ]
    latest: dict[int, int] = {}
    items: list[Item] = []
    for _, number, place in sorted(turns)[:requests]:
        items.append(sessions[number].turns[place]._replace(after=latest.get(number, NOBODY)))
        latest[number] = len(items) - 1
    begin = items[0].at_s if items else 0.0
    return [item._replace(at_s=item.at_s - begin) for item in items]
