"""`Cache`: what is indexed by itself."""

from dataclasses import dataclass

from multipick_epp.types import Endpoint


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache that is indexed by itself: what an endpoint holds on one medium, for one KV-cache group."""

    endpoint: Endpoint
    block_size: int  # tokens
    medium: str = "GPU"
    group: int = 0
    kind: str = "full_attention"  # the engine's `kv_cache_spec_kind`
    window: int = 0  # tokens; sliding-window groups only
