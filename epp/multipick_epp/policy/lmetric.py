"""LMETRIC: new prefill tokens x batch size (OSDI '26, arXiv:2603.15202, section 5.1). It has no parameters."""

from random import Random

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.snapshot import Ranking, Snapshot


def lmetric(snapshot: Snapshot, rng: Random) -> Ranking:
    """Score `P_i * B_i`: `P_i = queued_i + max(1, L - hit_i)` tokens, `B_i = in flight_i + 1` requests."""
    length = snapshot.prompt_tokens
    scores = [
        (queued + (length - hit if hit < length else 1)) * (in_flight + 1)
        for hit, queued, in_flight in zip(snapshot.hit_tokens, snapshot.queued_tokens, snapshot.in_flight, strict=True)
    ]
    return smallest_first(scores, rng)
