"""What an engine really has cached, with the tokens of each block: what an index built from events must equal.

Kept apart from events, in dev mode only: block contents are noted when a request comes in, and looked up for the hashes
that the block pool holds.
"""

from dataclasses import dataclass
from typing import Any

from multipick_sim.pod.flow import Flow
from multipick_sim.pod.kv_events import GROUP, Content
from multipick_sim.pod.rank import Rank

ENTRIES_A_BLOCK = 8
"""So many block contents are kept for each block of the pool; then those that nobody can look up are dropped."""


@dataclass(frozen=True, slots=True)
class _Origin:
    content: Content
    index: int  # of the block in its request
    parent: int | None


class Truth:
    """Block contents of one rank, by hash."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._origins: dict[int, _Origin] = {}

    def note(self, flow: Flow) -> None:
        """Remember what a new request's blocks hold."""
        parent = None
        for index, hash_ in enumerate(flow.request.block_hashes):
            self._origins.setdefault(hash_, _Origin(flow.content, index, parent))
            parent = hash_
        if len(self._origins) > ENTRIES_A_BLOCK * self._rank.engine.limits.num_gpu_blocks:
            self._forget()

    def blocks(self) -> list[dict[str, Any]]:
        """Every cached block: group, hash, parent, copies, token_ids, lora_name, extra_keys."""
        size = self._rank.engine.limits.block_size
        found = []
        for hash_, copies in self._rank.engine.pool.cached().items():
            origin = self._origins[hash_]
            found.append(
                {
                    "group": GROUP,
                    "hash": hash_,
                    "parent": origin.parent,
                    "copies": copies,
                    "token_ids": origin.content.ids[origin.index * size : (origin.index + 1) * size].tolist(),
                    "lora_name": origin.content.lora,
                    "extra_keys": origin.content.extra_keys(origin.index),
                }
            )
        return found

    def _forget(self) -> None:
        cached, flows = self._rank.engine.pool.cached(), self._rank.flows
        kept = cached.keys() | {hash_ for flow in flows for hash_ in flow.request.block_hashes}
        self._origins = {hash_: origin for hash_, origin in self._origins.items() if hash_ in kept}
