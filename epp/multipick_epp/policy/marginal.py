"""`marginal`: LMETRIC's product with both factors as the work that this request adds. It has no parameters."""

from collections.abc import Sequence
from random import Random

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.snapshot import Ranking, Snapshot


def marginal(snapshot: Snapshot, rng: Random) -> Ranking:
    """Score `(queued_i + new_i (1 + z)) * (M_i + min M)`, `M_i = context_i + (in flight_i + 1) L`.

    `M_i` is the decode traffic that the request adds: the others' contexts slow it, and its own slows each of them. The
    least of them, which is to be had anyway, stands for the fixed cost of a step: among pods that are much alike the
    first factor decides, while a crowded one is avoided in full. `z` is the price of prefill: the fewest requests
    without a first token on any endpoint, each of which waits for our new tokens; zero while anybody is free. Live,
    load that no reservation explains counts as long as this prompt, and as prefilled.
    """
    length, traffic = snapshot.prompt_tokens, _traffic(snapshot)
    price, least_traffic = _pool_terms(snapshot, traffic)
    columns = zip(snapshot.queued_tokens, snapshot.hit_tokens, traffic, strict=True)
    scores = [
        (queued + (length - hit if hit < length else 1) * price) * (added + least_traffic)
        for queued, hit, added in columns
    ]
    return smallest_first(scores, rng)


def pool_terms(snapshot: Snapshot) -> tuple[int, float]:
    """`1 + z` and min `M`: what all scores have in common. An atomic reserve takes them from the view that ranked."""
    return _pool_terms(snapshot, _traffic(snapshot))


def _traffic(snapshot: Snapshot) -> Sequence[int]:
    length = snapshot.prompt_tokens
    return [
        context + (count + 1) * length for context, count in zip(snapshot.contexts(), snapshot.in_flight, strict=True)
    ]


def _pool_terms(snapshot: Snapshot, traffic: Sequence[int]) -> tuple[int, float]:
    # A float makes the scores floats, which sort in half the time of integers of this size.
    return 1 + min(snapshot.prefilling, default=0), float(min(traffic, default=0))
