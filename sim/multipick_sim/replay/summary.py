"""Outcomes of several seeds -> one row a policy and load."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from multipick_sim.replay.outcome import Outcome

# Student's t, two-sided 95 %, by degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_T95_MORE = 2.2


@dataclass(frozen=True, slots=True)
class Mean:
    """A figure over the seeds."""

    value: float
    half: float | None  # half the width of its 95 % interval; None for a single seed

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Mean and interval, by Student's t."""
        count = len(values)
        if count < 2:
            return cls(values[0], None)
        t = _T95[count - 2] if count - 2 < len(_T95) else _T95_MORE
        return cls(fmean(values), t * stdev(values) / sqrt(count))


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one load; times in seconds."""

    policy: str
    load: float
    seeds: int
    ttft_mean: Mean
    ttft_p50: Mean
    ttft_p95: Mean
    ttft_p99: Mean
    tpot_mean: Mean | None  # None where no answer has a second token: classifiers, embeddings
    tpot_p95: Mean | None
    e2e_mean: Mean
    e2e_p99: Mean
    hit_rate: Mean
    imbalance: Mean
    foreseen: Mean
    hot: Mean
    avoided: Mean


def rows(outcomes: Sequence[Outcome]) -> Sequence[Row]:
    """In the order in which policies and loads come first."""
    groups: dict[tuple[float, str], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault((each.arm.load, each.arm.policy), []).append(each)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Outcome]) -> Row:
    arm = group[0].arm
    tpots = [each.tpot_s for each in group if each.tpot_s is not None]
    return Row(
        policy=arm.policy,
        load=arm.load,
        seeds=len(group),
        ttft_mean=Mean.of([each.ttft_s.mean for each in group]),
        ttft_p50=Mean.of([each.ttft_s.p50 for each in group]),
        ttft_p95=Mean.of([each.ttft_s.p95 for each in group]),
        ttft_p99=Mean.of([each.ttft_s.p99 for each in group]),
        tpot_mean=Mean.of([each.mean for each in tpots]) if tpots else None,
        tpot_p95=Mean.of([each.p95 for each in tpots]) if tpots else None,
        e2e_mean=Mean.of([each.e2e_s.mean for each in group]),
        e2e_p99=Mean.of([each.e2e_s.p99 for each in group]),
        hit_rate=Mean.of([each.hit_rate for each in group]),
        imbalance=Mean.of([each.imbalance for each in group]),
        foreseen=Mean.of([each.foreseen for each in group]),
        hot=Mean.of([float(each.hot) for each in group]),
        avoided=Mean.of([float(each.avoided) for each in group]),
    )
