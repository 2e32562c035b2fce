"""One run: a workload, a policy, a pool, a seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from random import Random

from multipick_epp.policy import hotspot
from multipick_epp.policy.registry import policy
from multipick_epp.policy.snapshot import Rank, Ranking, Snapshot
from multipick_epp.types import Endpoint

from multipick_sim.replay.fleet import Fleet
from multipick_sim.replay.flight import Flight
from multipick_sim.replay.keys import key_maker
from multipick_sim.replay.loads import Loads
from multipick_sim.replay.setup import Setup
from multipick_sim.workloads.workload import NOBODY, Workload

GUARDED = frozenset(map(policy, hotspot.GUARDED))
"""Rules that the hotspot guard belongs to; other projects' have none."""
TELL_EVERY = 100

Observe = Callable[[Snapshot, Flight, Ranking], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What happened."""

    flights: Sequence[Flight]  # in the order in which they came
    hot: int  # requests of a class that asked for more than its holders' part of the pool
    avoided: int  # of these, sent elsewhere


class Replay:
    """The state of one run."""

    def __init__(
        self, workload: Workload, rank: Rank, setup: Setup, load: float, seed: int, observe: Observe | None = None
    ) -> None:
        """`load` is how many times faster than in the workload the requests come; `observe` is told of each decision.

        The workload must fit the engines (`Workload.fitting`). Raises ValueError for block sizes of which neither is a
        multiple of the other.
        """
        self._rank = rank
        self._guarded = setup.guard and self._rank in GUARDED
        self._setup = setup
        self._items = workload.items
        self._load = load
        self._observe = observe
        self._keys = key_maker(workload.block_tokens, setup.block_size)
        self._rng = Random(f"replay {seed}")
        self._fleet = Fleet(setup, self._ended)
        self._endpoints = [Endpoint(f"pod-{row}") for row in range(setup.pods)]
        views = setup.pickers if setup.own_view else 1
        self._views = [Loads(setup.pods, workload.block_tokens, setup.loads_late_s) for _ in range(views)]
        self._flights: list[Flight] = []
        self._hot = self._avoided = 0
        self._clock = 0.0
        self._looked_s = 0.0
        self._due: list[tuple[float, int]] = []  # requests whose time is known
        self._followers: dict[int, list[int]] = {}  # requests that wait for another's end
        self._number: dict[Flight, int] = {}
        for number, item in enumerate(self._items):
            if setup.closed_loop and item.after != NOBODY:
                self._followers.setdefault(item.after, []).append(number)
            else:
                self._due.append((item.at_s / load, number))
        heapify(self._due)

    def run(self, tell: Callable[[int], None] = lambda done: None) -> Run:
        """Run to the end of the last request; `tell` is called now and then with the requests sent so far."""
        while self._due or self._followers:
            self._advance()
            at_s, number = heappop(self._due)
            self._send(at_s, number)
            if len(self._flights) % TELL_EVERY == 0:
                tell(len(self._flights))
        self._fleet.advance(float("inf"))
        tell(len(self._flights))
        return Run(self._flights, self._hot, self._avoided)

    # --- time

    def _advance(self) -> None:
        """Go on to the next request's arrival.

        In a closed loop the end of one request can bring another, so the engines go on by less than a step at a time:
        whatever ends in such a while ends after it.
        """
        while not self._due or self._clock < self._due[0][0]:
            until = self._due[0][0] if self._due else float("inf")
            if self._followers and self._fleet.busy:
                until = min(until, self._clock + self._fleet.shortest_step_s)
            every = self._setup.gauges_every_s
            look_s = until // every * every if until < float("inf") else self._looked_s
            if look_s > self._looked_s:
                self._fleet.advance(look_s)
                self._fleet.look()
                self._looked_s = look_s
                for view in self._views:
                    view.picked = [0] * self._setup.pods
            self._fleet.advance(until)
            self._clock = until

    def _ended(self, flight: Flight) -> None:
        number = self._number.pop(flight)
        for follower in self._followers.pop(number, ()):
            heappush(self._due, (max(self._items[follower].at_s / self._load, flight.end_s), follower))

    # --- one request

    def _send(self, at_s: float, number: int) -> None:
        item = self._items[number]
        size = self._setup.block_size
        view = self._views[self._rng.randrange(len(self._views))] if len(self._views) > 1 else self._views[0]
        self._fleet.tell(at_s)
        view.at(at_s)
        keys = self._keys(item.prefixes, item.known_tokens, item.prompt_tokens + item.output_tokens)
        blocks = item.prompt_tokens // size
        usable = (item.prompt_tokens - 1) // size
        depths = [
            view.expected(row, keys, usable, residency.depth(keys, usable))
            for row, residency in enumerate(self._fleet.residencies)
        ]
        snapshot = self._snapshot(view, item.prompt_tokens, [depth * size for depth in depths], keys[:blocks])
        ranking = self._guard(view, snapshot, self._rank(snapshot, self._rng))
        row = ranking.rows[0]
        new = snapshot.new_tokens(row)
        flight = Flight(item, at_s, keys, blocks, row, snapshot.hit_tokens[row], depths[row], new)
        if self._observe:
            self._observe(snapshot, flight, ranking)
        view.routed(flight, at_s)
        self._number[flight] = number
        self._flights.append(flight)
        self._fleet.send(str(number), flight, view)

    def _snapshot(self, view: Loads, length: int, hits: Sequence[int], keys: Sequence[int]) -> Snapshot:
        gauges = self._fleet.gauges
        return Snapshot(
            length,
            self._endpoints,
            hits,
            view.queued,
            view.in_flight,
            waiting=gauges.waiting,
            running=gauges.running,
            kv_usage=gauges.kv_usage,
            picked=view.picked,
            turn=view.turn,
            pickers=len(self._views),
            context_tokens=view.context,
            kv_tokens=view.kv,
            uncached_tokens=view.uncached,
            prefill_tokens=view.prefill,
            prefilling=view.prefilling,
            recent_tokens=view.recent,
            prefill_rates=[prefill.tokens_s for prefill in self._fleet.prefills],
            prefixes=view.popularity.count(keys, self._setup.block_size),
        )

    def _guard(self, view: Loads, snapshot: Snapshot, ranking: Ranking) -> Ranking:
        hot = view.guard.watch(snapshot, ranking) if self._guarded else None
        if hot is None:
            return ranking
        self._hot += 1
        if not hot.avoid:
            return ranking
        self._avoided += 1
        return hotspot.without(ranking, hot, self._rng)
