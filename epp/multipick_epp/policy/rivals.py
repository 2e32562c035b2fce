"""The rules of other routers that weigh cache against load; each formula in the words of its own project.

All of them are given multipick's knowledge: hits from KV events, loads from the shared state. Some of these projects
know less (AIBrix and SMG guess residency from their own routing, and count only their own requests), so this is what
their rule does at its best.
"""

from collections.abc import Sequence
from random import Random
from statistics import fmean, stdev

from multipick_epp.policy.ordering import smallest_first, with_rest
from multipick_epp.policy.snapshot import Ranking, Snapshot

LINEAR_WEIGHT = 0.5

AIBRIX_GATE = 8  # requests between the busiest and the idlest endpoint
SMG_GATE, SMG_RATIO, SMG_MATCH = 64, 1.5, 0.3
LLMD_AFFINITY = 0.8  # share of the prompt
LLMD_PENALTY_S = 18.0
LLMD_PREFILL_TOKENS_S = 15_928
# Preble's cost model as AIBrix carries it on: an A6000's prefill, and a request's decode by its default answer length.
PREBLE_TOKEN_S = 0.10842571e-3 / 0.9
PREBLE_REQUEST_S = 45 * 0.15


class Linear:
    """The paper's production scheduler (Bailian): `w * (1 - hit / L) + (1 - w) * in flight / max in flight`.

    The smallest wins. Its third term, total tokens over their maximum, has weight 0 here: batch size is the better sign
    of load (section 4 of the paper, and `p-token-total-tokens`).
    """

    def __init__(self, weight: float = LINEAR_WEIGHT) -> None:
        """Raises ValueError for a weight outside 0..1."""
        if not 0 <= weight <= 1:
            raise ValueError(f"linear's weight is from 0 to 1, not {weight}")
        self._weight = weight

    def __call__(self, snapshot: Snapshot, rng: Random) -> Ranking:
        """Rank the endpoints."""
        most = max(snapshot.in_flight, default=0) or 1
        miss, load = self._weight / snapshot.prompt_tokens, (1 - self._weight) / most
        scores = [miss * new + load * count for new, count in zip(snapshot.new(), snapshot.in_flight, strict=True)]
        return smallest_first(scores, rng)


def dynamo(snapshot: Snapshot, rng: Random) -> Ranking:
    """NVIDIA Dynamo 1.6, KvRouter's defaults: prefill + decode load, in tokens where Dynamo has blocks.

    `max(0, prefill + L - hit) + kv + L`: `prefill` are uncached tokens of requests without a first token, whole until
    that comes; `kv` is what the requests in flight hold, shared prefixes once. Live: the queue stands for the first,
    which falls chunk by chunk, and a prefix that several share counts for each of them.
    """
    length = snapshot.prompt_tokens
    prefill = snapshot.prefill_tokens or snapshot.queued_tokens
    held = snapshot.kv_tokens or snapshot.contexts()
    scores = [
        max(0, waiting + length - hit) + tokens + length
        for waiting, hit, tokens in zip(prefill, snapshot.hit_tokens, held, strict=True)
    ]
    return smallest_first(scores, rng)


def aibrix(snapshot: Snapshot, rng: Random) -> Ranking:
    """AIBrix `prefix-cache`: the best match among those not overloaded, else the fewest requests.

    Where the requests in flight differ by more than 8, only the least loaded are looked at. Then by match in percent,
    most first, and load; the first within the mean plus one standard deviation of all loads wins.
    """
    loads = snapshot.in_flight
    least = min(loads, default=0)
    gated = max(loads, default=0) - least > AIBRIX_GATE
    matches = [100 * hit // snapshot.prompt_tokens for hit in snapshot.hit_tokens]
    limit = fmean(loads) + (stdev(loads) if len(loads) > 1 else 0.0) if loads else 0.0
    rows = [
        row for row, load in enumerate(loads) if matches[row] > 0 and load <= limit and (load == least or not gated)
    ]
    draws = {row: rng.random() for row in rows}
    rows.sort(key=lambda row: (-matches[row], loads[row], draws[row]))
    return with_rest(rows, smallest_first(loads, rng))


def smg(snapshot: Snapshot, rng: Random) -> Ranking:
    """SMG / SGLang router / vLLM router `cache_aware`: the longest match above 30 %, unless loads are far apart.

    Loads are far apart when they differ by more than 64 requests and by more than half of the smallest. Its tree names
    one owner of the deepest match; here the least loaded of those that hold it does for it.
    """
    loads = snapshot.in_flight
    by_load = smallest_first(loads, rng)
    low, high = min(loads, default=0), max(loads, default=0)
    best = max(snapshot.hit_tokens, default=0)
    if (high - low > SMG_GATE and high > SMG_RATIO * low) or best <= SMG_MATCH * snapshot.prompt_tokens:
        return by_load
    return with_rest(
        _least_of([row for row, hit in enumerate(snapshot.hit_tokens) if hit == best], loads, rng), by_load
    )


def llm_d(snapshot: Snapshot, rng: Random) -> Ranking:
    """llm-d's default: stay with those that hold 80 % of the prompt, then the fewest uncached tokens in flight.

    Affinity ends where waiting there would take 18 s longer than elsewhere, at 15,928 prefill tokens a second (its
    defaults, calibrated on its own hardware). Live: tokens still queued stand for those of all requests in flight.
    """
    tokens = snapshot.uncached_tokens or snapshot.queued_tokens
    scores = [held + new for held, new in zip(tokens, snapshot.new(), strict=True)]
    by_load = smallest_first(scores, rng)
    sticky = [row for row, hit in enumerate(snapshot.hit_tokens) if hit >= LLMD_AFFINITY * snapshot.prompt_tokens]
    if not sticky or min(tokens[row] for row in sticky) - min(tokens) > LLMD_PENALTY_S * LLMD_PREFILL_TOKENS_S:
        return by_load
    return with_rest(_least_of(sticky, scores, rng), by_load)


def preble(snapshot: Snapshot, rng: Random) -> Ranking:
    """Preble's E2: where less is new than cached, the cheapest of the longest match; else the cheapest of all.

    Cost: prefill of the last three minutes, this prompt's, and decode of the requests in flight, in seconds of its own
    calibration. Not here: its rebalancing of a hot prefix over time, which is no function of one snapshot. Live: the
    queue stands for the last three minutes.
    """
    recent = snapshot.recent_tokens or snapshot.queued_tokens
    costs = [
        PREBLE_TOKEN_S * (before + new) + PREBLE_REQUEST_S * count
        for before, new, count in zip(recent, snapshot.new(), snapshot.in_flight, strict=True)
    ]
    by_cost = smallest_first(costs, rng)
    best = max(snapshot.hit_tokens, default=0)
    if snapshot.prompt_tokens - best >= best:
        return by_cost
    return with_rest(
        _least_of([row for row, hit in enumerate(snapshot.hit_tokens) if hit == best], costs, rng), by_cost
    )


def _least_of(rows: Sequence[int], scores: Sequence[float], rng: Random) -> Sequence[int]:
    """Some rows, smallest score first; equal ones in random order."""
    return [rows[place] for place in smallest_first([scores[row] for row in rows], rng).rows]
