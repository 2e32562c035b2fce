"""The policies that LMETRIC is compared with; formulae in the words of their own projects."""

from random import Random

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.snapshot import Ranking, Snapshot


def round_robin(snapshot: Snapshot, rng: Random) -> Ranking:
    """Each endpoint in turn, by its place in the pool; what a plain Kubernetes Service comes close to."""
    count = len(snapshot.endpoints)
    first = snapshot.turn % count if count else 0
    return Ranking([*range(first, count), *range(first)])


def vllm_v1(snapshot: Snapshot, rng: Random) -> Ranking:
    """`4 * waiting + running` from the engines' last gauges: vLLM's internal balancer up to 0.31.

    It counts each pick as one more waiting request until the next gauges, as that balancer did for its own clients.
    Without gauges, requests in flight stand in for `running`.
    """
    if not snapshot.waiting:
        return smallest_first([float(count) for count in snapshot.in_flight], rng)
    picked = snapshot.picked or [0] * len(snapshot.endpoints)
    scores = [
        4 * (waiting + sent) + running
        for waiting, running, sent in zip(snapshot.waiting, snapshot.running, picked, strict=True)
    ]
    return smallest_first(scores, rng)
