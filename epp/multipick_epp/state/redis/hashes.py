"""The hashes of the loads and the charges as the store gives them, read: whatever stands there is input."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from multipick_epp.state.redis import replies
from multipick_epp.state.redis.figures import CONTEXTS, read_figure, read_load, with_contexts
from multipick_epp.types import NO_LOAD, Endpoint, Load

_TABLE: Final = b""  # the field that makes a hash a table: see `lua/common.lua`


def read_loads(reply: object) -> Mapping[Endpoint, Load]:
    """The load of each endpoint. Fields that are none of ours, as a younger picker may have them, count as endpoints
    that nobody asks for.

    Raises LostError where it is no hash.
    """
    loads: dict[Endpoint, Load] = {}
    contexts: dict[Endpoint, int] = {}
    for name, text in replies.pairs(reply):
        endpoint, of_contexts = _place(name)
        if of_contexts:
            contexts[endpoint] = read_figure(text)
        else:
            loads[endpoint] = read_load(read_figure(text))
    loads.pop(Endpoint(""), None)  # the field that makes it a table
    for endpoint, number in contexts.items():
        loads[endpoint] = with_contexts(loads.get(endpoint, NO_LOAD), number)
    return loads


def read_charges(recorded: Iterable[tuple[bytes, bytes]]) -> Mapping[str, int]:
    """The figure of each field of what a replica charges."""
    return {_field(name): read_figure(text) for name, text in recorded if name != _TABLE and is_text(name)}


def is_text(name: bytes) -> bool:
    """Whether a field's name is one that we can write."""
    return "\ufffd" not in _field(name)


@lru_cache(maxsize=16_384)
def _place(name: bytes) -> tuple[Endpoint, bool]:
    """The endpoint of a field, and whether that has its contexts."""
    field = _field(name)
    return Endpoint(field.removesuffix(CONTEXTS)), field.endswith(CONTEXTS)


@lru_cache(maxsize=16_384)
def _field(name: bytes) -> str:
    return name.decode(errors="replace")
