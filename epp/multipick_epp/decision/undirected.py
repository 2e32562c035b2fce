"""Requests that no header can send to a rank: the engine chooses among those behind its port.

So its port is one candidate. It is worth what its cheapest rank is, since engines choose by load, too, and hits what
every one of its ranks would hit. The charge goes to that rank: whichever the engine takes, the port's load is right.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from multipick_epp.pods.columns import Columns
from multipick_epp.policy.snapshot import new_tokens
from multipick_epp.types import Endpoint, Load


def one_a_port(
    ready: Columns,
    ports: Collection[Endpoint],
    hits: Mapping[Endpoint, int],
    loads: Callable[[Sequence[Endpoint]], Sequence[Load]],
    prompt_tokens: int,
) -> tuple[Columns, Mapping[Endpoint, int]]:
    """Of each of `ports` the row of one rank; all other rows as they are. And the hits, as far as they are certain."""
    certain = dict(hits)
    left_out = set[int]()
    for port in ports:
        rows = ready.ports[port]
        ranks = [ready.endpoints[row] for row in rows]
        hit = least_hit(hits, ranks)
        costs = {
            row: (load.queued_tokens + ready.unexplained_queued[row] + new_tokens(prompt_tokens, hit))
            * (load.in_flight + ready.unexplained_in_flight[row] + 1)
            for row, load in zip(rows, loads(ranks), strict=True)
        }
        cheapest = min(costs, key=costs.__getitem__)
        left_out.update(row for row in rows if row != cheapest)
        certain[ready.endpoints[cheapest]] = hit
    return ready.only([row for row in range(len(ready.endpoints)) if row not in left_out]), certain


def least_hit(hits: Mapping[Endpoint, int], ranks: Sequence[Endpoint]) -> int:
    """Tokens that the prompt hits on whichever of these ranks serves it."""
    return min((hits.get(rank, 0) for rank in ranks), default=0)
