"""What is told of one endpoint's events."""

from dataclasses import dataclass

from multipick_epp.types import Endpoint, Mode


@dataclass(frozen=True, slots=True)
class FeedStats:
    """One endpoint's feed now, and totals since this process follows it."""

    endpoint: Endpoint
    mode: Mode | None  # None: nothing is known yet
    connected: bool
    blocks: int  # resident, over all caches
    waiting_blocks: int  # stored, but their parent is unknown
    unplaced_blocks: int  # stored, but of no cache that can be
    operations: int  # blocks stored and removed, as announced
    batches: int
    gaps: int
    restarts: int
    undecodable: int  # messages and events that could not be read
    uploads: int  # times that the index was told everything
    lag_s: float  # from the engine's step to the index, by both clocks
    why: str  # why there are no events; "" where there are
    skipped_blocks: int = 0  # stored, but on a medium that isn't followed
    limit: str = ""  # the bound that it goes beyond, and why less is known of it than it tells; "" for none
