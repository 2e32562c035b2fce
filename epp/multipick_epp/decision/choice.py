"""The part of a decision that never leaves the process: hits and loads -> a ranking, and whom to reserve among."""

import itertools
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from operator import add
from random import Random
from typing import NamedTuple

from multipick_epp.blocks import Chains
from multipick_epp.decision.hotspots import Hotspots
from multipick_epp.decision.prompts import Blind, Known
from multipick_epp.decision.undirected import one_a_port
from multipick_epp.pods.columns import Columns
from multipick_epp.policy.candidates import candidates_of
from multipick_epp.policy.hotspot import Hotspot
from multipick_epp.policy.marginal import marginal, pool_terms
from multipick_epp.policy.snapshot import NO_PREFIXES, Prefixes, Rank, Ranking, Snapshot
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt, Marginal, State
from multipick_epp.telemetry.tallies import Spreads
from multipick_epp.types import Endpoint


class Choice(NamedTuple):
    """What the local view says about one request."""

    snapshot: Snapshot
    ranking: Ranking
    rows: Sequence[int]  # of the snapshot: among whom to reserve, best first
    candidates: Candidates  # the same, as `State.reserve` wants them
    equal_prompt: (
        EqualPrompt | None
    )  # where some of these would have to prefill more than the rest of the prompt's last block
    context: Context | None  # None: not to be accounted for
    kept_out: Hotspot | None  # the hot class whose holders the ranking leaves out


class Chooser:
    """Chooses by one policy; counts its decisions, since some policies take turns."""

    def __init__(
        self,
        rank: Rank,
        state: State,
        hotspots: Hotspots,
        rng: Random,
        stages: Spreads,
        *,
        accounts_contexts: bool = False,
        shown_later: bool = False,
    ) -> None:
        """`stages` are told how long lookup and policy took, in seconds. `accounts_contexts`: whether this policy,
        or another that is shown the snapshots, reads them. `shown_later`: others are shown them after the decision.
        """
        self._rank = rank
        self._accounts_contexts = accounts_contexts
        self._shown_later = shown_later
        self._state = state
        self._hotspots = hotspots
        self._rng = rng
        self._lookup_seconds, self._policy_seconds = stages.labels("lookup"), stages.labels("policy")
        self._turn = 0

    def choose(self, prompt: Known | Blind, ready: Columns, undirected: Collection[Endpoint] = ()) -> Choice:
        """Rank the endpoints of `ready`, of which there is at least one. The ports `undirected` choose the rank."""
        started = time.perf_counter()
        hits = self.hits(prompt)
        if undirected:
            ready, hits = one_a_port(ready, undirected, hits, self._state.loads, prompt.prompt_tokens)
        looked_up = time.perf_counter()
        alone = prompt.alone
        prefixes = NO_PREFIXES if alone is None else self._hotspots.prefixes(alone)
        snapshot = self._snapshot(prompt.prompt_tokens, hits, ready.still() if self._shown_later else ready, prefixes)
        self._turn += 1
        ranking = self._rank(snapshot, self._rng)
        kept_out = None
        if snapshot.prefixes.keys:
            ranking, kept_out = self._hotspots.guarded(snapshot, ranking, self._rng)
        rows = candidates_of(self._rank, ranking)
        candidates = _candidates(snapshot, ready, rows)
        self._lookup_seconds.observe(looked_up - started)
        self._policy_seconds.observe(time.perf_counter() - looked_up)
        equal_prompt = (
            _equal_prompt(alone, max(candidates.new_tokens)) if alone is not None and not undirected else None
        )
        return Choice(snapshot, ranking, rows, candidates, equal_prompt, self._context(snapshot), kept_out)

    def hits(self, prompt: Known | Blind) -> Mapping[Endpoint, int]:
        """Tokens that each endpoint holds of the prompt; those that hold none are left out."""
        if type(prompt) is Blind or not prompt.reads_cache:
            return {}
        if len(prompt.chains) == 1:
            return self._state.hits(prompt.chains[0])
        total = Counter[Endpoint]()
        for chains in prompt.chains:
            total.update(self._state.hits(chains))
        return total

    def _snapshot(
        self, prompt_tokens: int, hits: Mapping[Endpoint, int], ready: Columns, prefixes: Prefixes
    ) -> Snapshot:
        hit_tokens = [*map(hits.get, ready.endpoints, itertools.repeat(0))]
        queued, in_flight, contexts, prefilling = self._state.load_columns(ready.endpoints)
        accounts, unexplained = self._accounts_contexts, ready.unexplained_in_flight
        return Snapshot(
            max(1, prompt_tokens),  # policies divide by it, and clients may send an empty prompt
            ready.endpoints,
            hit_tokens,
            _sums(queued, ready.unexplained_queued),
            _sums(in_flight, unexplained),
            waiting=() if ready.unscraped else ready.waiting,
            running=() if ready.unscraped else ready.running,
            kv_usage=() if ready.unscraped else ready.kv_usage,
            picked=ready.picked,
            turn=self._turn,
            context_tokens=_sums(contexts, unexplained, prompt_tokens) if accounts else (),
            prefilling=prefilling if accounts else (),
            prefixes=prefixes,
        )

    def _context(self, snapshot: Snapshot) -> Context | None:
        if not self._accounts_contexts:
            return None
        pool = Marginal(*pool_terms(snapshot)) if self._rank is marginal else None
        return Context(snapshot.prompt_tokens, pool)


def _sums(known: Sequence[int], unexplained: Sequence[int], each: int = 1) -> Sequence[int]:
    """`unexplained` count for `each`."""
    if unexplained.count(0) == len(unexplained):  # seven times as fast as `any`
        return known
    return [*map(add, known, unexplained if each == 1 else [count * each for count in unexplained])]


def _candidates(snapshot: Snapshot, ready: Columns, rows: Sequence[int]) -> Candidates:
    endpoints, hits, length = snapshot.endpoints, snapshot.hit_tokens, snapshot.prompt_tokens
    columns = [endpoints[row] for row in rows], [length - hits[row] if hits[row] < length else 1 for row in rows]
    queued = [ready.unexplained_queued[row] for row in rows]
    in_flight = [ready.unexplained_in_flight[row] for row in rows]
    return Candidates(*columns, queued, in_flight) if any(queued) or any(in_flight) else Candidates(*columns)


def _equal_prompt(chains: Chains, most_new_tokens: int) -> EqualPrompt | None:
    """`most_new_tokens`: what any candidate would have to prefill."""
    size = min(chains.by_size, default=0)
    usable = chains.usable(size) if size else 0
    if not 0 < usable <= len(chains.by_size[size]):
        return None
    equal_prompt = EqualPrompt(chains.by_size[size][usable - 1], chains.prompt_tokens - usable * size)
    return equal_prompt if most_new_tokens > equal_prompt.new_tokens else None
