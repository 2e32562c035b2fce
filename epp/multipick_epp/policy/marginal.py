"""`marginal`: LMETRIC's product with both factors as the work that this request adds. It has no parameters."""

from random import Random

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.snapshot import Ranking, Snapshot


def marginal(snapshot: Snapshot, rng: Random) -> Ranking:
    """Score `(queued_i + new_i (1 + z)) * (M_i + mean M)`, `M_i = context_i + (in flight_i + 1) L`.

    `M_i` is the decode traffic that the request adds: the others' contexts slow it, and its own slows each of them; the
    mean stands for the fixed cost of a step, so that balance can't override the first factor near it. `z` is the
    price of prefill: the fewest requests without a first token on any endpoint, each of which waits for our new
    tokens; zero while anybody is free. Live: contexts count as long as this prompt, and z is 0 where it is unknown.
    """
    length = snapshot.prompt_tokens
    price = 1 + min(snapshot.prefilling, default=0)
    traffic = [
        context + (count + 1) * length for context, count in zip(snapshot.contexts(), snapshot.in_flight, strict=True)
    ]
    mean = sum(traffic) / max(1, len(traffic))
    scores = [
        (queued + new * price) * (each + mean)
        for queued, new, each in zip(snapshot.queued_tokens, snapshot.new(), traffic, strict=True)
    ]
    return smallest_first(scores, rng)
