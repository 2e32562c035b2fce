"""What is to be run: where the requests come from, on which pool, under which policies, at which loads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from multipick_sim.replay.capacity import full_load
from multipick_sim.replay.outcome import Arm, Outcome
from multipick_sim.replay.setup import Setup
from multipick_sim.workloads.formats import read_workload
from multipick_sim.workloads.generators import generator
from multipick_sim.workloads.workload import Workload

GENERATED_REQUESTS = 4000


class StudyError(Exception):
    """The study can't be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the requests come from."""

    trace: str  # a path, or the name of a generator
    requests: int | None = None
    spread: bool = False  # requests of one instant spread over the clock's tick

    def workload(self, seed: int, max_tokens: int) -> tuple[Workload, int]:
        """The requests that fit an engine, and how many don't. A trace is the same for every seed.

        Raises TraceError for a trace that can't be read, StudyError where no request is left.
        """
        path = Path(self.trace)
        make = None if path.exists() else generator(self.trace)
        whole = make(self.requests or GENERATED_REQUESTS, seed) if make else read_workload(path, self.requests)
        if self.spread:
            whole = whole.spread()
        fitting = whole.fitting(max_tokens)
        if not fitting.items:
            raise StudyError(f"{self.trace}: no request has {max_tokens} tokens or less")
        return fitting, len(whole.items) - len(fitting.items)

    @property
    def depends_on_seed(self) -> bool:
        """Whether each seed has requests of its own."""
        return not Path(self.trace).exists()


@dataclass(frozen=True, slots=True)
class Level:
    """A load as it was asked for."""

    factor: float
    of_capacity: bool = False  # of round-robin's capacity; else of the workload's own clock

    def __str__(self) -> str:
        return f"{self.factor:g}{'c' if self.of_capacity else ''}"


@dataclass(frozen=True, slots=True)
class Study:
    """What is to be run: every policy at every load with every seed."""

    source: Source
    setup: Setup
    policies: Sequence[str]
    levels: Sequence[Level]
    seeds: int

    def arms(self, capacity: float | None) -> Sequence[Arm]:
        """All of them, seed by seed, so that whoever stops early has whole rows. `capacity` where a level needs it."""
        loads = [level.factor * (capacity or 1.0) if level.of_capacity else level.factor for level in self.levels]
        return [Arm(policy, load, seed) for seed in range(self.seeds) for load in loads for policy in self.policies]

    @property
    def needs_capacity(self) -> bool:
        """Whether any level is of round-robin's capacity."""
        return any(level.of_capacity for level in self.levels)


def capacity_of(study: Study) -> float:
    """The load at which requests come as fast as round-robin finishes them."""
    workload, _ = study.source.workload(0, study.setup.max_tokens)
    return full_load(workload, study.setup)


def in_order(outcomes: Iterable[Outcome], arms: Sequence[Arm]) -> Sequence[Outcome]:
    """Outcomes in the order of their arms, however they came."""
    by_arm = {each.arm: each for each in outcomes}
    return [by_arm[arm] for arm in arms if arm in by_arm]
