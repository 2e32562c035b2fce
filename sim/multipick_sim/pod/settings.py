"""What a simulated pod is told on its command line."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from multipick_sim.assets import MODEL_DIR
from multipick_sim.engine.costs import Costs
from multipick_sim.engine.values import MAX_BLOCKS, Limits

ENGINE_VERSION = "0.32.0"
"""The vLLM release whose answers, metrics and events a pod imitates."""
_LAST_PORT = 65_535


class EventFormat(StrEnum):
    """How KV events are encoded: bodies as maps since vLLM 0.24, as arrays before."""

    MAP = "map"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class Settings:
    """One pod."""

    limits: Limits
    costs: Costs
    models: Sequence[str]  # served names; the first is the one that metrics and errors show
    loras: Sequence[str] = ()
    runtime_loras: bool = False  # more may be loaded, and any unloaded, while it runs
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    events_port: int | None = None  # of rank 0, rank n has n more; 0: any free ones; None: no KV events
    replay_port: int | None = None
    topic: str = ""
    event_format: EventFormat = EventFormat.MAP
    tokenizer: Path = MODEL_DIR
    speed: float = 1.0  # engine seconds a second
    stream_interval: int = 1  # tokens a chunk, after the first
    seed: int = 0
    shutdown_timeout_s: float = 0.0
    first_rank: int = 0
    ranks: int = 1  # data-parallel ranks: engines behind the one HTTP port
    prompt_tokens_details: bool = True
    dev: bool = False  # endpoints that vLLM has only in its dev mode, and /sim/cache

    def __post_init__(self) -> None:
        """Raises ValueError for what can't be one pod."""
        if self.ranks * self.limits.num_gpu_blocks > MAX_BLOCKS:
            raise ValueError(f"more than {MAX_BLOCKS} blocks: lower num_gpu_blocks or data_parallel_size")
        for first in (self.events_port, self.replay_port):
            if first and first + self.ranks - 1 > _LAST_PORT:
                raise ValueError(f"a port for each rank from {first} on: there is none above {_LAST_PORT}")
        if repeated := [name for name, count in Counter([*self.loras, *{*self.models}]).items() if count > 1]:
            raise ValueError(f"two adapters, or a model and an adapter, are called {repeated[0]}")
