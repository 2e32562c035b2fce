"""The reasoning effort that stands for "no thinking" in an Anthropic request: the model's least."""

from collections.abc import Callable
from typing import Literal

Effort = Literal["none", "low", "medium", "high", "xhigh", "max"]
_THINKING = ("low", "medium", "high", "xhigh", "max")


def least_effort(probe: Callable[[str], object]) -> Effort:
    """`probe(effort)` is what a short chat becomes with it, None where the model refuses it.

    The engine finds it out so (`entrypoints/anthropic/serving.py`), where it is not told: "none", or "low" where "none"
    is refused or taken for another effort.
    """
    none = probe("none")
    return "low" if none is None or none in map(probe, _THINKING) else "none"
