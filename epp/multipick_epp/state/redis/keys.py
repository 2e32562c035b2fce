"""The names of a pool's keys. They share one hash tag, so that a Cluster keeps them on one node and a script may use
them together, and an ACL user can be limited to them: `~{kv:<pool>}:*`.
"""

from dataclasses import dataclass

from multipick_epp.types import Endpoint

LOG_ENTRIES = 20_000
"""The log keeps about so many, of 4.5 KB at most: minutes of a busy pool. A reader that lags more loads the sets again.

The server trims whole nodes of up to 100 entries: so many more may be there, of this and of the hints.
"""
HINT_ENTRIES = 1_000
"""Routed prompts, 14 KB each if long. They matter for seconds: what a reader misses of them it learns from events."""
KEEP_S = 900
"""A pool without any replica is forgotten after so long, by the expiry of all its keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one pool."""

    tag: str
    generation: str  # STRING: changes when the store lost its data
    endpoints: str  # SET of endpoints that have a fence
    modes: str  # HASH endpoint -> residency mode
    log: str  # STREAM of changes, capped
    hints: str  # STREAM of routed prompts, capped
    load: str  # HASH endpoint -> requests in flight * 2^35 + queued tokens: the sum of all replicas' charges
    routed: str  # HASH block key -> the endpoints that prompts ending in it were reserved on in the last seconds
    leases: str  # HASH replica -> a stamp that is another with each renewal: charges
    outliers: str  # HASH endpoint -> how often in a row it was left out since its requests fail
    owners: str  # ZSET replica -> a stamp that is another with each renewal: ingest
    holders: str  # HASH endpoint -> the replica that writes it

    def fence(self, endpoint: Endpoint) -> str:
        """HASH: epoch, last sequence, base sequence, and each cache's sequence."""
        return f"{self.tag}:e:{endpoint}"

    def notes(self, endpoint: Endpoint) -> str:
        """HASH: what a successor of its owner needs; see `records`."""
        return f"{self.tag}:n:{endpoint}"

    def blocks(self, cache_name: bytes) -> bytes:
        """SET of a cache's block keys, 8 bytes little-endian each, and one empty member."""
        return b"%s:b:%s" % (self.tag.encode(), cache_name)

    def charges(self, replica: bytes) -> bytes:
        """HASH endpoint -> what this replica charges there, as `load` has it."""
        return b"%s:charges:%s" % (self.tag.encode(), replica)

    def leaving(self, replica: bytes) -> bytes:
        """STRING, for a moment: this replica gave up its lease, and follows its endpoints until others do."""
        return b"%s:leaving:%s" % (self.tag.encode(), replica)

    def of_the_pool(self) -> tuple[str, ...]:
        """The keys that belong to no endpoint and no replica."""
        return (
            *(self.generation, self.endpoints, self.modes, self.log, self.hints),
            *(self.load, self.leases, self.outliers, self.owners, self.holders),
        )


def keys_of(pool: str) -> Keys:
    """The keys of `pool`. Raises ValueError for a name that would break out of the hash tag."""
    if not pool or "{" in pool or "}" in pool:
        raise ValueError(f"not a pool name: {pool!r}")
    tag = f"{{kv:{pool}}}"
    names = ("gen", "endpoints", "modes", "log", "hints", "loads", "routed", "leases", "outliers", "owners", "holders")
    return Keys(tag, *(f"{tag}:{name}" for name in names))
