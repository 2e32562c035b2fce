"""The two hooks that the conformance suite of the Gateway API Inference Extension asks of a picker under test.

By the first any client chooses its endpoint, so neither is there unless it was asked for.
"""

from collections.abc import Mapping
from typing import Final

from multipick_epp.types import Endpoint

SELECTION: Final = "test-epp-endpoint-selection"
"""Request header: the endpoints to pick from, `ip` or `ip:port`, separated by commas. Goes before the subset hint."""

SERVED: Final = "x-conformance-test-served-endpoint"
"""Response header: the endpoint that the gateway says it was served by."""

_MAX_SELECTED: Final = 1000


def selection(headers: Mapping[str, str], subset: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The subset that a request is to be picked from."""
    named = headers.get(SELECTION)
    if named is None:
        return subset
    return tuple(name for name in map(str.strip, named.split(",", _MAX_SELECTED)[:_MAX_SELECTED]) if name)


def served(endpoint: Endpoint | None) -> Mapping[str, str]:
    """What its response says."""
    return {} if endpoint is None else {SERVED: endpoint}
