"""A load as numbers of the store's hashes, each of two figures, so that one command changes both.

The field of an endpoint's name: requests in flight x 2^35 + queued tokens. The field of its contexts: requests that are
not prefilled yet x 2^35 + prompt tokens of those in flight, where pickers account for them. To a picker of a release
before contexts, which sums up, repairs and reaps whatever fields there are, it is one more endpoint.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from multipick_epp.types import NO_LOAD, Endpoint, Load

IN_FLIGHT: Final = 2**35
"""See `lua/common.lua`."""
MOST: Final = 2**53
"""Lua's numbers are exact below it: up to 2^18 requests. Whatever is not below is no figure of ours."""
CONTEXTS: Final = " contexts"
"""Ends the name of such a field; see `lua/common.lua`. No endpoint's name has a space."""


def figure(tokens: int, requests: int) -> int:
    """The number for these, or for a change of these."""
    return requests * IN_FLIGHT + tokens


def fields_of(endpoint: Endpoint, change: Load) -> Sequence[tuple[str, int]]:
    """The fields that a change of the endpoint's load changes, and by how much."""
    queued_tokens, in_flight, context_tokens, prefilling = change
    fields: list[tuple[str, int]] = [(endpoint, figure(queued_tokens, in_flight))] if queued_tokens or in_flight else []
    if context_tokens or prefilling:
        fields.append((endpoint + CONTEXTS, figure(context_tokens, prefilling)))
    return fields


def change_of(field: str, number: int) -> tuple[Endpoint, Load]:
    """The inverse of `fields_of`: what a change of one field changes."""
    requests, above = divmod(number + IN_FLIGHT // 2, IN_FLIGHT)
    tokens = above - IN_FLIGHT // 2
    if field.endswith(CONTEXTS):
        return Endpoint(field.removesuffix(CONTEXTS)), Load(0, 0, tokens, requests)
    return Endpoint(field), Load(tokens, requests)


def read_figure(text: bytes) -> int:
    """The number that the store has; 0 where that is none of ours."""
    number = int(text) if text.isdigit() and len(text) < 17 else 0
    return number if number < MOST else 0


@lru_cache(maxsize=8192)
def read_load(number: int) -> Load:
    """The load of a figure, without contexts; never negative. Tokens that were taken off twice have borrowed of a
    request: none are queued then.
    """
    if not 0 < number < MOST:
        return NO_LOAD
    in_flight, above = divmod(number + IN_FLIGHT // 2, IN_FLIGHT)
    return Load(max(0, above - IN_FLIGHT // 2), in_flight)


def with_contexts(load: Load, number: int) -> Load:
    """The load with the contexts of a figure."""
    context_tokens, prefilling, _, _ = read_load(number)
    return Load(load.queued_tokens, load.in_flight, context_tokens, prefilling)
