"""What a run is told besides its workload and its policy."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from multipick_sim.engine.engine import Engine
from multipick_sim.engine.presets import DEFAULT_PRESET, PRESETS

GAUGES_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Setup:
    """The pool, and how much its pickers know."""

    pods: int = 16
    preset: str = DEFAULT_PRESET  # or several, with commas between them: the pods' in turn
    block_size: int = 16  # tokens, of the engines
    closed_loop: bool = False  # a turn comes no sooner than the one before it has ended
    pickers: int = 1
    own_view: bool = False  # each picker knows its own requests alone; else they share the loads
    hits_late_s: float = 0.0  # KV events are known so long after the engine sent them
    loads_late_s: float = 0.0  # above 0: nothing is reserved, and loads are known so late
    gauges_every_s: float = GAUGES_EVERY_S  # seconds between two looks at the engines' gauges
    guard: bool = True  # the hotspot guard, for the rules of this project

    def engines(self) -> Sequence[Engine]:
        """The pool, idle and empty."""
        presets = [PRESETS[name] for name in self.preset.split(",")]
        return [
            Engine(preset.limits(self.block_size), preset.costs())
            for preset in itertools.islice(itertools.cycle(presets), self.pods)
        ]

    @property
    def max_tokens(self) -> int:
        """Of prompt and answer together, that every engine takes."""
        return min(PRESETS[name].limits(self.block_size).max_model_len for name in self.preset.split(","))
