"""A run -> figures and curves: what is kept of it, some kilobytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from multipick_sim.replay.flight import Flight
from multipick_sim.replay.run import Run
from multipick_sim.traffic.measures import Spread, percentile, spread

CURVE_POINTS = 61
BINS = 80


@dataclass(frozen=True, slots=True)
class Arm:
    """What was run: one cell of the study."""

    policy: str
    load: float  # times faster than the workload's own clock
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. Times are seconds of the run."""

    arm: Arm
    requests: int
    ttft_s: Spread
    tpot_s: Spread | None  # None where no answer has a second token
    e2e_s: Spread
    hit_rate: float  # cached share of the prompt tokens, as the engines count it
    foreseen: float  # share of the requests whose hit was foreseen exactly
    imbalance: float  # prefilled tokens of the busiest pod over the mean of all; 1 = even
    duration_s: float
    hot: int  # requests of a class that asked for more than its holders' part of the pool
    avoided: int  # of these, sent elsewhere by the hotspot guard
    ttft_curve: Sequence[float]  # seconds that a growing share of requests doesn't exceed, from 0 to 1
    tpot_curve: Sequence[float]
    e2e_curve: Sequence[float]
    waiting: Sequence[float]  # requests without a first token, mean of each of `BINS` equal times
    imbalance_over_time: Sequence[float]  # of each of them; 1 where nothing was prefilled
    pod_requests: Sequence[int]
    pod_tokens: Sequence[int]  # prefilled


def outcome(arm: Arm, run: Run, pods: int) -> Outcome:
    """The figures of a run of at least one request."""
    flights = run.flights
    ttft = sorted(flight.first_s - flight.at_s for flight in flights)
    e2e = sorted(flight.end_s - flight.at_s for flight in flights)
    tpot = sorted(
        (flight.end_s - flight.first_s) / (flight.item.output_tokens - 1)
        for flight in flights
        if flight.item.output_tokens > 1
    )
    requests, tokens = [0] * pods, [0] * pods
    for flight in flights:
        requests[flight.row] += 1
        tokens[flight.row] += flight.item.prompt_tokens - flight.cached_tokens
    begin, end = flights[0].at_s, max(flight.end_s for flight in flights)
    prompt_tokens = sum(flight.item.prompt_tokens for flight in flights)
    return Outcome(
        arm=arm,
        requests=len(flights),
        ttft_s=_spread(ttft),
        tpot_s=spread(tpot),
        e2e_s=_spread(e2e),
        hit_rate=1 - sum(tokens) / prompt_tokens,
        foreseen=sum(flight.cached_tokens == flight.predicted_tokens for flight in flights) / len(flights),
        imbalance=_imbalance(tokens),
        duration_s=end - begin,
        hot=run.hot,
        avoided=run.avoided,
        ttft_curve=_curve(ttft),
        tpot_curve=_curve(tpot),
        e2e_curve=_curve(e2e),
        waiting=_waiting(flights, begin, end),
        imbalance_over_time=_imbalances(flights, begin, end, pods),
        pod_requests=requests,
        pod_tokens=tokens,
    )


def _spread(ascending: Sequence[float]) -> Spread:
    found = spread(ascending)
    assert found is not None, "a run has a request at least"
    return found


def _curve(ascending: Sequence[float]) -> Sequence[float]:
    if not ascending:
        return ()
    return [percentile(ascending, point / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)]


def _imbalance(tokens: Sequence[int]) -> float:
    return max(tokens) * len(tokens) / sum(tokens) if sum(tokens) else 1.0


def _waiting(flights: Sequence[Flight], begin: float, end: float) -> Sequence[float]:
    """By the seconds that requests waited in each bin."""
    width = (end - begin) / BINS or 1.0
    waited = [0.0] * BINS
    for flight in flights:
        at = flight.at_s
        while at < flight.first_s:
            place = min(BINS - 1, int((at - begin) / width))
            until = flight.first_s if place == BINS - 1 else min(flight.first_s, begin + (place + 1) * width)
            if until <= at:  # a bin's edge, rounded
                until = min(flight.first_s, at + width)
            waited[place] += until - at
            at = until
    return [each / width for each in waited]


def _imbalances(flights: Sequence[Flight], begin: float, end: float, pods: int) -> Sequence[float]:
    width = (end - begin) / BINS or 1.0
    tokens = [[0] * pods for _ in range(BINS)]
    for flight in flights:
        place = min(BINS - 1, int((flight.first_s - begin) / width))
        tokens[place][flight.row] += flight.item.prompt_tokens - flight.cached_tokens
    return [_imbalance(each) for each in tokens]
