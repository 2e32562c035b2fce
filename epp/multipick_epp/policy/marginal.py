"""`marginal`: LMETRIC's product with both factors as the work that this request adds. It has no parameters."""

from collections.abc import Sequence
from random import Random

from multipick_epp.policy.ordering import smallest_first
from multipick_epp.policy.snapshot import Ranking, Snapshot


def marginal(snapshot: Snapshot, rng: Random) -> Ranking:
    """Score `(queued_i + new_i (1 + z)) * (M_i + mean M)`, `M_i = context_i + (in flight_i + 1) L`.

    `M_i` is the decode traffic that the request adds: the others' contexts slow it, and its own slows each of them; the
    mean stands for the fixed cost of a step, so that balance can't override the first factor near it. `z` is the
    price of prefill: the fewest requests without a first token on any endpoint, each of which waits for our new
    tokens; zero while anybody is free. Live, load that no reservation explains counts as long as this prompt, and as
    prefilled.
    """
    length, contexts = snapshot.prompt_tokens, snapshot.contexts()
    price, mean_traffic = pool_terms(snapshot, contexts)
    columns = zip(snapshot.queued_tokens, snapshot.hit_tokens, contexts, snapshot.in_flight, strict=True)
    scores = [
        (queued + (length - hit if hit < length else 1) * price) * (context + (count + 1) * length + mean_traffic)
        for queued, hit, context, count in columns
    ]
    return smallest_first(scores, rng)


def pool_terms(snapshot: Snapshot, contexts: Sequence[int]) -> tuple[int, float]:
    """`1 + z` and mean `M`: what all scores have in common. An atomic reserve takes them from the view that ranked."""
    count = len(snapshot.endpoints)
    traffic = sum(contexts) + (sum(snapshot.in_flight) + count) * snapshot.prompt_tokens
    return 1 + min(snapshot.prefilling, default=0), traffic / max(1, count)
