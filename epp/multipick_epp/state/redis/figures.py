"""A load as one number: requests in flight x 2^35 + queued tokens, so that one command of the store changes both."""

from functools import lru_cache
from typing import Final

from multipick_epp.state.ledger import NO_LOAD, Charge
from multipick_epp.types import Load

IN_FLIGHT: Final = 2**35
"""See `lua/common.lua`."""
MOST: Final = 2**53
"""Lua's numbers are exact below it: up to 2^18 requests. Whatever is not below is no figure of ours."""


def figure(queued_tokens: int, in_flight: int) -> int:
    """The number for these, or for a change of these."""
    return in_flight * IN_FLIGHT + queued_tokens


def figure_of(charge: Charge) -> int:
    """What one reservation adds."""
    return IN_FLIGHT + charge.queued_tokens


def read_figure(text: bytes) -> int:
    """The number that the store has; 0 where that is none of ours."""
    number = int(text) if text.isdigit() and len(text) < 17 else 0
    return number if number < MOST else 0


@lru_cache(maxsize=8192)
def read_load(number: int) -> Load:
    """The load of a figure; never negative. Tokens that were taken off twice have borrowed of a request: none are
    queued then.
    """
    if not 0 < number < MOST:
        return NO_LOAD
    in_flight, above = divmod(number + IN_FLIGHT // 2, IN_FLIGHT)
    return Load(max(0, above - IN_FLIGHT // 2), in_flight)
