"""Predicted hits against what engines tell of the very requests, where their responses pass through the picker.

Engines name in an answer's `usage` how many tokens the prompt had and how many of them were cached. Of every so many
predictions that claim to be exact, one is held against that: no counter of others' traffic is in it, unlike in
`checks.drift`. A prompt of another length is certain proof of other token ids.
"""

from enum import StrEnum
from typing import NamedTuple

from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.extproc.usage import Usage
from multipick_epp.types import Mode

EVERY = 16
"""One prediction of so many: the end of the response is kept for it, in 2 kB."""


class Predicted(NamedTuple):
    """Of one request."""

    prompt_tokens: int
    hit_tokens: int


class Outcome(StrEnum):
    """How the engine's figures compare with it."""

    EQUAL = "equal"
    FEWER = "fewer"  # it found less in its cache: evicted since, or routed elsewhere an event ago
    MORE = "more"
    LENGTH = "length"  # its prompt has another length: other token ids


class Sample:
    """Chooses the predictions that are compared."""

    def __init__(self, every: int = EVERY) -> None:
        self._every = every
        self._passed = 0  # predictions since the last that was taken

    def take(self, prompt: Known | Blind, hit_tokens: int, mode: Mode) -> Predicted | None:
        """What to compare later; None for a prediction that is not compared."""
        if mode is not Mode.EXACT or type(prompt) is Blind or prompt.guessed or prompt.alone is None:
            return None
        self._passed += 1
        if self._passed < self._every:
            return None
        self._passed = 0
        return Predicted(prompt.prompt_tokens, hit_tokens)


def compare(predicted: Predicted, usage: Usage) -> tuple[Outcome, int] | None:
    """The outcome, and by how many tokens it is off; None where the engine told too little."""
    if usage.prompt is None or usage.cached is None:
        return None
    if usage.prompt != predicted.prompt_tokens:
        return Outcome.LENGTH, abs(usage.prompt - predicted.prompt_tokens)
    off = usage.cached - predicted.hit_tokens
    return (Outcome.EQUAL if off == 0 else Outcome.MORE if off > 0 else Outcome.FEWER), abs(off)
