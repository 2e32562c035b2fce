"""Records -> figures. Pure.

A percentile is interpolated between the two nearest ranks, as numpy does by default.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multipick_sim.traffic.records import Record


@dataclass(frozen=True, slots=True)
class Spread:
    """How a measure is distributed over requests."""

    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One run, measured. Times are engine seconds; None where no request gave a value.

    Only whole answers count; `failed` says how many requests are not in the figures.
    """

    requests: int
    failed: int
    duration_s: float  # from the first request sent to the last answer's end
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: Spread | None
    tpot_s: Spread | None
    e2e_s: Spread | None
    hit_rate: float  # cached share of the prompt tokens
    imbalance: float  # prefilled tokens of the busiest endpoint over the mean of all; 1 = even


def measure(records: Sequence[Record], endpoints: int) -> Figures:
    """The figures of one run over `endpoints` pods."""
    answered = [record for record in records if record.ok]
    prompt_tokens = sum(record.prompt_tokens for record in answered)
    cached_tokens = sum(record.cached_tokens or 0 for record in answered)
    return Figures(
        requests=len(records),
        failed=len(records) - len(answered),
        duration_s=max((r.end_s for r in answered), default=0.0) - min((r.sent_s for r in answered), default=0.0),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        output_tokens=sum(record.output_tokens for record in answered),
        ttft_s=spread(record.ttft_s for record in answered),
        tpot_s=spread(record.tpot_s for record in answered),
        e2e_s=spread(record.e2e_s for record in answered),
        hit_rate=cached_tokens / prompt_tokens if prompt_tokens else 0.0,
        imbalance=_imbalance(answered, endpoints),
    )


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and percentiles of the values that are there; None where none is."""
    present = sorted(value for value in values if value is not None)
    if not present:
        return None
    return Spread(
        mean=sum(present) / len(present),
        p50=percentile(present, 0.50),
        p95=percentile(present, 0.95),
        p99=percentile(present, 0.99),
    )


def percentile(ascending: Sequence[float], share: float) -> float:
    """The value that `share` of the values don't exceed, interpolated. `ascending` holds at least one."""
    rank = share * (len(ascending) - 1)
    below = int(rank)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (rank - below)


def _imbalance(answered: Sequence[Record], endpoints: int) -> float:
    prefilled: Counter[str] = Counter()
    for record in answered:
        if record.endpoint is not None:
            prefilled[record.endpoint] += record.prompt_tokens - (record.cached_tokens or 0)
    total = prefilled.total()
    return max(prefilled.values()) * endpoints / total if total else 1.0
