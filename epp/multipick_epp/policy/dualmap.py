"""DualMap (ICLR '26, arXiv:2602.06502), as Dynamo's port has it: each prefix belongs to two endpoints."""

from random import Random

from xxhash import xxh3_64_intdigest

from multipick_epp.policy.ordering import smallest_first, with_rest
from multipick_epp.policy.snapshot import Ranking, Snapshot

PREFIX_TOKENS = 64  # four blocks
BUDGET_TOKENS = 65_536


def dualmap(snapshot: Snapshot, rng: Random) -> Ranking:
    """Of the prefix's two endpoints the one that caches more, unless its prefill would pass 65,536 tokens.

    Then, and where both cache as much, the one with less to prefill. The prefix is the prompt's first four blocks,
    twice as many while more than 2/n of the last requests share it; rendezvous hashing picks the two. Live, and for
    prompts without a block: no prefix is known, and the whole pool is the choice.
    """
    pending = snapshot.prefill_tokens or snapshot.queued_tokens
    new = snapshot.new()
    by_load = smallest_first(pending, rng)
    key = _key(snapshot)
    if key is None:
        return by_load
    ranks = [xxh3_64_intdigest(endpoint.encode(), key) for endpoint in snapshot.endpoints]
    pair = sorted(range(len(ranks)), key=ranks.__getitem__, reverse=True)[:2]
    by_pending = sorted(pair, key=pending.__getitem__)
    warmest = min(pair, key=new.__getitem__)
    if len({new[row] for row in pair}) == 1 or pending[warmest] + new[warmest] > BUDGET_TOKENS:
        return with_rest(by_pending, by_load)
    return with_rest(sorted(pair, key=new.__getitem__), by_load)


def _key(snapshot: Snapshot) -> int | None:
    prefixes = snapshot.prefixes
    for tokens, key, count in zip(prefixes.tokens, prefixes.keys, prefixes.counts, strict=True):
        if tokens >= PREFIX_TOKENS and count * len(snapshot.endpoints) <= 2 * prefixes.requests:
            return key
    return prefixes.keys[-1] if prefixes.keys else None
