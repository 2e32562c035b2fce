"""What an owner of an endpoint's events leaves to the next one, so that a change of owner forgets nothing.

Beside the blocks themselves, a successor needs to know which batch of the engine the index stands at, what the engine
calls each block, and of which there are several copies. All of it belongs to one position.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec

from multipick_epp.state.cache import Cache
from multipick_epp.types import BlockKey, Mode

_U64 = Annotated[int, msgspec.Meta(ge=0)]


class Position(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=False):
    """The batch of an engine up to which everything is in the index."""

    seq: Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 2)]  # the publisher's own number of it; -1: none yet
    digest: _U64  # xxh3_64 of its bytes
    exact: bool  # the index had the engine's GPU contents, block for block
    publisher: Annotated[str, msgspec.Meta(max_length=512)]  # its address
    started_ms: int | None = None  # when the engine's container started, by its node's clock


class Name(NamedTuple):
    """What a block is called by us, and the block before it (a root, where it is a prompt's first)."""

    key: BlockKey
    parent: BlockKey


@dataclass(frozen=True, slots=True)
class Names:
    """What changed of the engine's names (64-bit hashes) for blocks of one size; another size may have the same."""

    block_size: int
    keys: Mapping[int, BlockKey]
    parents: Sequence[BlockKey]  # the key of the block before it, for each of `keys`
    forgotten: Sequence[int]


@dataclass(frozen=True, slots=True)
class Notes:
    """What changed of what a successor needs, together with the blocks of some batches.

    `whole`: this is all of it, and replaces what was noted before.
    """

    position: Position | None  # None: there is nothing that one could go on from
    names: Sequence[Names]
    copies: Mapping[Cache, Mapping[BlockKey, int]]  # 2 or more; less: no longer worth a note
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Inheritance:
    """An endpoint's index as its last owner left it."""

    position: Position
    contents: Mapping[Cache, Collection[BlockKey]]
    names: Mapping[int, Mapping[int, Name]]  # by block size and hash
    copies: Mapping[Cache, Mapping[BlockKey, int]]


@dataclass(frozen=True, slots=True)
class Tenure:
    """An endpoint was taken over: only what is written under this epoch counts from now on."""

    epoch: int
    last: int  # the last sequence that was written, by whomever; -1: none
    mode: Mode | None  # how well the endpoint is said to be known
    inheritance: Inheritance | None  # None: what stands in the index can't be gone on from, only be replaced
