"""Other policies, asked about live requests: what each would have done, beside what was done.

They see the very snapshot of the decision, after it was answered, and cost a bounded share of the event loop: what
comes meanwhile is left out, and counted.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from multipick_epp.policy.snapshot import Rank, Ranking, Snapshot
from multipick_epp.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

SHARE = 0.05
"""Of the time, for all shadows together."""
WAITING = 64
"""Decisions that wait to be looked at."""


class _Decision(NamedTuple):
    snapshot: Snapshot
    ranking: Ranking
    row: int  # the chosen one


class Shadows:
    """Invariant: at most `WAITING` decisions wait, and at most one call of `_work` is scheduled while any does."""

    def __init__(self, policies: Mapping[str, Rank], rng: Random, metrics: Metrics) -> None:
        self._policies = policies
        self._rng = rng
        self._metrics = metrics
        self._waiting: deque[_Decision] = deque()
        self._scheduled: asyncio.Handle | None = None
        self._rests_until_s = 0.0
        self._failed: set[str] = set()  # those whose failure was logged

    def look(self, snapshot: Snapshot, ranking: Ranking, row: int) -> None:
        """A decision was made: `row` of the snapshot was chosen."""
        if not self._policies:
            return
        if len(self._waiting) >= WAITING:
            self._metrics.shadows_skipped.inc()
            return
        self._waiting.append(_Decision(snapshot, ranking, row))
        if self._scheduled is None:
            self._schedule()

    def close(self) -> None:
        """Look at no more."""
        self._waiting.clear()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

    def _schedule(self) -> None:
        rest_s = max(0.0, self._rests_until_s - time.perf_counter())
        self._scheduled = asyncio.get_running_loop().call_later(rest_s, self._work)

    def _work(self) -> None:
        started = time.perf_counter()
        self._scheduled = None
        try:
            self._compare(self._waiting.popleft())
        finally:
            ended = time.perf_counter()
            self._rests_until_s = ended + (ended - started) * (1 / SHARE - 1)
            if self._waiting:
                self._schedule()

    def _compare(self, decision: _Decision) -> None:
        snapshot, ranking, row = decision
        metrics = self._metrics
        for name, rank in self._policies.items():
            try:
                other = rank(snapshot, self._rng).rows[0]
                hit_tokens = snapshot.hit_tokens[other]
            except Exception:  # it may be another's code, and fail on every request
                metrics.shadow_decisions.labels(name, "failed").inc()
                if name not in self._failed:
                    self._failed.add(name)
                    log.exception("a shadow policy failed", extra={"policy": name})
                continue
            metrics.shadow_decisions.labels(name, "same" if other == row else "other").inc()
            metrics.shadow_hit_tokens.labels(name).inc(hit_tokens)
            metrics.shadow_own_hit_tokens.labels(name).inc(snapshot.hit_tokens[row])
            if ranking.scores and ranking.scores[row] > 0:
                metrics.shadow_regret.labels(name).inc(max(0.0, ranking.scores[other] / ranking.scores[row] - 1))
