"""What the state room counts about itself, for metrics: read the attributes whenever they are wanted."""

from collections import Counter
from dataclasses import dataclass, field

from multipick_epp.state.protocol import Applied


@dataclass(slots=True)
class StateStats:
    """Totals since the start of this process, and a few gauges."""

    applied: Counter[Applied] = field(default_factory=Counter)  # deltas and clears, by what became of them
    operations: int = 0  # blocks stored and removed in the mirror
    holes: int = 0  # hits that were cut down because an earlier block was missing
    expired: int = 0  # blocks expected and never confirmed
    bootstraps: int = 0  # times the mirror was loaded from the shared truth
    repairs: int = 0  # times that an endpoint was loaded again, since the mirror was not what the shared truth had
    log_lag_s: float = 0.0  # age of the newest log entry when it was read
    reserved_here: int = 0  # reserves that the local view decided, since the store was away
    recharged: int = 0  # requests in flight that had to be charged again: the store had lost them
    reaped: int = 0  # requests in flight of dead replicas that this one took back
    load_repairs: int = 0  # figures in the store that were not the sum of what is charged
    malformed: Counter[str] = field(default_factory=Counter)  # stored values that could not be read, by kind
    outages: Counter[tuple[str, str]] = field(default_factory=Counter)  # links to the store that broke: link, reason
