"""What the pickers believe to be on each endpoint: the reservations, and the columns that only some policies read."""

from collections import Counter, deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from multipick_epp.policy.hotspot import HotspotGuard
from multipick_epp.policy.popularity import Popularity

from multipick_sim.replay.flight import Flight

RECENT_S = 180.0
KV_TOKENS = 512  # a shared prefix is counted once in pieces of so many tokens


class _Change(NamedTuple):
    """What is added to one endpoint's figures."""

    row: int
    queued: int = 0
    in_flight: int = 0
    context: int = 0
    uncached: int = 0
    prefill: int = 0
    prefilling: int = 0


class Loads:
    """One view of the loads: of a picker by itself, or of all that share their state.

    Without `late_s` a pick is charged at once, as the shared state does it. With it nothing is reserved, and every
    change is seen so many seconds late: what a picker sees that reads gauges.
    """

    def __init__(self, endpoints: int, block_tokens: int, late_s: float = 0.0) -> None:
        """`block_tokens` are those of a workload's `prefixes`."""
        self.queued = [0] * endpoints
        self.in_flight = [0] * endpoints
        self.context = [0] * endpoints
        self.uncached = [0] * endpoints
        self.prefill = [0] * endpoints
        self.prefilling = [0] * endpoints
        self.recent = [0] * endpoints
        self.kv = [0] * endpoints
        self.picked = [0] * endpoints  # since the last gauges
        self.pending: list[list[Flight]] = [[] for _ in range(endpoints)]  # routed there, not prefilled: expected
        self.turn = 0
        self.popularity = Popularity()
        self.guard = HotspotGuard(self.popularity)
        self._late_s = late_s
        self._late: list[tuple[float, int, _Change]] = []
        self._changes = 0
        self._routed: deque[tuple[float, int, int]] = deque()
        self._piece = max(1, KV_TOKENS // block_tokens)
        self._piece_tokens = self._piece * block_tokens
        self._holders: list[Counter[int]] = [Counter() for _ in range(endpoints)]

    def at(self, now: float) -> None:
        """Bring the view up to `now`."""
        while self._late and self._late[0][0] <= now:
            self._apply(heappop(self._late)[2])
        while self._routed and self._routed[0][0] <= now - RECENT_S:
            _, row, tokens = self._routed.popleft()
            self.recent[row] -= tokens

    def routed(self, flight: Flight, now: float) -> None:
        """A request was sent to its endpoint."""
        row, new, length = flight.row, flight.uncached_tokens, flight.item.prompt_tokens
        self.turn += 1
        self.picked[row] += 1
        self._change(now, _Change(row, new, 1, length, new, new, 1))
        self.recent[row] += new
        self._routed.append((now, row, new))
        self._hold(flight, 1)
        if not self._late_s:
            self.pending[row].append(flight)

    def progressed(self, flight: Flight, left: int, now: float) -> None:
        """Events say that only `left` tokens of the prompt are still to be prefilled."""
        if left < flight.left:
            self._change(now, _Change(flight.row, queued=left - flight.left))
            flight.left = left

    def prefilled(self, flight: Flight, now: float) -> None:
        """The first token is out."""
        if not flight.waits:
            return
        self.progressed(flight, 0, now)
        flight.waits = False
        self._change(now, _Change(flight.row, prefill=-flight.uncached_tokens, prefilling=-1))
        if not self._late_s:
            self.pending[flight.row].remove(flight)

    def ended(self, flight: Flight, now: float) -> None:
        """The last token is out."""
        self.prefilled(flight, now)
        change = _Change(flight.row, 0, -1, -flight.item.prompt_tokens, -flight.uncached_tokens)
        self._change(now, change)
        self._hold(flight, -1)

    def expected(self, row: int, keys: Sequence[int], limit: int, depth: int) -> int:
        """How deep the endpoint holds a prompt once those routed there are prefilled; `depth` it holds already.

        Counted as the picker's optimistic entries are: a routed prompt's blocks beyond its own hit.
        """
        grew = True
        while grew:
            grew = False
            for flight in self.pending[row]:
                other = flight.keys
                if depth < limit and depth < flight.prompt_blocks and other[depth] == keys[depth]:
                    if depth < flight.hit_blocks:
                        continue
                    depth = _common(other, keys, depth + 1, min(limit, flight.prompt_blocks))
                    grew = True
        return depth

    def _hold(self, flight: Flight, by: int) -> None:
        holders, row = self._holders[flight.row], flight.row
        length = flight.item.prompt_tokens
        pieces = flight.item.prefixes[self._piece - 1 : length // self._piece_tokens * self._piece : self._piece]
        tail = length - len(pieces) * self._piece_tokens
        self.kv[row] += by * tail
        for piece in pieces:
            before = holders[piece]
            holders[piece] = before + by
            if not before or not before + by:
                self.kv[row] += by * self._piece_tokens
                if not before + by:
                    del holders[piece]

    def _change(self, now: float, change: _Change) -> None:
        if self._late_s:
            self._changes += 1
            heappush(self._late, (now + self._late_s, self._changes, change))
        else:
            self._apply(change)

    def _apply(self, change: _Change) -> None:
        row = change.row
        self.queued[row] += change.queued
        self.in_flight[row] += change.in_flight
        self.context[row] += change.context
        self.uncached[row] += change.uncached
        self.prefill[row] += change.prefill
        self.prefilling[row] += change.prefilling


def _common(one: Sequence[int], other: Sequence[int], low: int, high: int) -> int:
    """How many leading keys two chains share, at least `low` and at most `high`."""
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
