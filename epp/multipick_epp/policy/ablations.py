"""LMETRIC with one part taken out or replaced: what each part is worth (sections 4 and 5.1 of the paper)."""

from random import Random

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.snapshot import Ranking, Snapshot


def p_token(snapshot: Snapshot, rng: Random) -> Ranking:
    """`queued + new` alone: no batch size."""
    scores = [queued + new for queued, new in zip(snapshot.queued_tokens, snapshot.new(), strict=True)]
    return smallest_first(scores, rng)


def lmetric_no_queue(snapshot: Snapshot, rng: Random) -> Ranking:
    """`new * (in flight + 1)`: what other projects' branches call LMETRIC, the queued tokens forgotten."""
    scores = [new * (count + 1) for new, count in zip(snapshot.new(), snapshot.in_flight, strict=True)]
    return smallest_first(scores, rng)


def hit_ratio_batch(snapshot: Snapshot, rng: Random) -> Ranking:
    """`(1 - hit / L) * (in flight + 1)`: the share of the prompt that is new in the place of tokens to prefill."""
    length = snapshot.prompt_tokens
    scores = [new / length * (count + 1) for new, count in zip(snapshot.new(), snapshot.in_flight, strict=True)]
    return smallest_first(scores, rng)


def p_token_total_tokens(snapshot: Snapshot, rng: Random) -> Ranking:
    """`(queued + new) * (context tokens in flight + L)`: tokens in the place of requests."""
    scores = [
        (queued + new) * (context + snapshot.prompt_tokens)
        for queued, new, context in zip(snapshot.queued_tokens, snapshot.new(), snapshot.contexts(), strict=True)
    ]
    return smallest_first(scores, rng)


def lmetric_seconds(snapshot: Snapshot, rng: Random) -> Ranking:
    """`(queued + new) / prefill rate * (in flight + 1)`: seconds in the place of tokens, for unequal pods.

    An endpoint of which nothing was measured yet counts as fast as the mean of the others. Live: no rates are known,
    and it is LMETRIC.
    """
    rates = snapshot.prefill_rates or [1.0] * len(snapshot.endpoints)
    known = [rate for rate in rates if rate]
    usual = sum(known) / len(known) if known else 1.0
    scores = [
        (queued + new) / (rate or usual) * (count + 1)
        for queued, new, rate, count in zip(
            snapshot.queued_tokens, snapshot.new(), rates, snapshot.in_flight, strict=True
        )
    ]
    return smallest_first(scores, rng)
