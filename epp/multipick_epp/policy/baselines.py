"""Policies that see no cache; formulae in the words of their own projects.

`vllm-v1` and `vllm-032` read engine gauges. Where those of an endpoint are not known, requests in flight stand in.
"""

from random import Random

from multipick_epp.policy.ordering import first_of_equals, smallest_first, with_rest
from multipick_epp.policy.snapshot import Ranking, Snapshot


def round_robin(snapshot: Snapshot, rng: Random) -> Ranking:
    """Each endpoint in turn, by its place in the pool; what a plain Kubernetes Service comes close to."""
    count = len(snapshot.endpoints)
    first = snapshot.turn % count if count else 0
    return Ranking([*range(first, count), *range(first)])


def random_order(snapshot: Snapshot, rng: Random) -> Ranking:
    """Any endpoint; what a Kubernetes Service does."""
    count = len(snapshot.endpoints)
    return Ranking(rng.sample(range(count), count))


def least_request(snapshot: Snapshot, rng: Random) -> Ranking:
    """The fewest requests in flight (Envoy's LEAST_REQUEST over all hosts)."""
    return smallest_first(snapshot.in_flight, rng)


def power_of_two(snapshot: Snapshot, rng: Random) -> Ranking:
    """Of two endpoints drawn at random, the one with fewer requests in flight (Envoy's default, Ray Serve's)."""
    in_flight = snapshot.in_flight
    drawn = rng.sample(range(len(in_flight)), min(2, len(in_flight)))
    return with_rest(sorted(drawn, key=in_flight.__getitem__), random_order(snapshot, rng))


def vllm_v1(snapshot: Snapshot, rng: Random) -> Ranking:
    """`4 * waiting + running` from the engines' last gauges: vLLM's internal balancer up to 0.31.

    It counts each pick as one more waiting request until the next gauges, and `pickers` such clients count each for
    all. Of equals the first after a start that moves on by one a pick, as in the port that Dynamo made.
    """
    if not snapshot.waiting:
        return smallest_first(snapshot.in_flight, rng)
    scores = [4 * waiting + running for waiting, running in zip(_with_picks(snapshot), snapshot.running, strict=True)]
    return first_of_equals(scores, snapshot.turn)


def vllm_032(snapshot: Snapshot, rng: Random) -> Ranking:
    """vLLM's internal balancer since 0.32: waiting + running, more where KV cache is short and requests wait.

    `max(clients * own in flight, waiting + running)`, and where some wait `+ 6 * waiting * max(0, kv usage - 0.5)`. A
    client's own requests times the clients stand for all in flight; a shared state knows these.
    """
    if not snapshot.waiting:
        return smallest_first(snapshot.in_flight, rng)
    scores = [
        max(snapshot.pickers * in_flight, waiting + running) + 6 * waiting * max(0.0, usage - 0.5)
        for in_flight, waiting, running, usage in zip(
            snapshot.in_flight, _with_picks(snapshot), snapshot.running, snapshot.kv_usage, strict=True
        )
    ]
    return first_of_equals(scores, snapshot.turn)


def _with_picks(snapshot: Snapshot) -> list[float]:
    picked = snapshot.picked or [0] * len(snapshot.endpoints)
    return [waiting + snapshot.pickers * sent for waiting, sent in zip(snapshot.waiting, picked, strict=True)]
