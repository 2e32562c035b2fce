"""What a replayed policy is told, decision by decision, against the picker's own state on the same events."""

import asyncio
from random import Random

import pytest
from multipick_epp.blocks import Chains
from multipick_epp.decision.progress import Progress
from multipick_epp.policy.registry import policy
from multipick_epp.policy.snapshot import Ranking, Snapshot
from multipick_epp.state.cache import Cache
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Candidates, Context, Delta
from multipick_epp.types import BlockKey, Endpoint, Mode, ReservationId
from multipick_sim.engine.presets import PRESETS
from multipick_sim.engine.values import Removed, Step, Stored
from multipick_sim.replay.fleet import Fleet
from multipick_sim.replay.flight import Flight
from multipick_sim.replay.residency import Residency
from multipick_sim.replay.run import Replay
from multipick_sim.replay.setup import Setup
from multipick_sim.workloads.workload import Item, Workload

BLOCK = 16


class Picker:
    """The picker's index, loads and prefill progress, fed with what the engines of a replay do."""

    def __init__(self, fleet: Fleet, pods: int) -> None:
        self.now = 0.0
        self.state = MemoryState(clock=lambda: self.now)
        self.progress = Progress(self.state.progress, self._taken_over, lambda: self.now)
        self.state.on_stored(self.progress.stored)
        self.endpoints = [Endpoint(f"pod-{row}") for row in range(pods)]
        self.steps: list[tuple[float, int, Step]] = []
        self._copies: list[dict[int, int]] = [{} for _ in range(pods)]
        self._batch = [0] * pods
        for row, engine in enumerate(fleet.engines):
            advance = engine.advance

            def recorded(until: float, row: int = row, advance=advance) -> list[Step]:  # type: ignore[no-untyped-def]
                steps: list[Step] = advance(until)
                self.steps += [(step.end_s, row, step) for step in steps]
                return steps

            engine.advance = recorded  # type: ignore[method-assign]

    def _taken_over(self, reservation: ReservationId, *_: object) -> None:
        raise AssertionError(f"nobody leaves early here, and {reservation} has nothing to take over")

    async def start(self) -> None:
        for endpoint in self.endpoints:
            await self.state.take_over(endpoint)
            await self.state.set_mode(endpoint, 1, Mode.EXACT)
            await self.state.replace(endpoint, 1, 0, {Cache(endpoint, BLOCK): []})

    async def catch_up(self, now: float) -> None:
        self.now = now
        due = sorted((each for each in self.steps if each[0] <= now), key=lambda each: each[0])
        self.steps = [each for each in self.steps if each[0] > now]
        for _, row, step in due:
            await self._apply(row, step)
            for name in step.first_tokens:
                self.progress.first_byte(ReservationId(name))
            for name in step.finished:
                self.progress.forget(ReservationId(name))
                self.state.release(ReservationId(name))

    async def _apply(self, row: int, step: Step) -> None:
        stored: dict[int, bool] = {}  # the last operation on a key wins
        copies = self._copies[row]
        for event in step.events:
            if isinstance(event, Stored):
                for key in event.hashes:
                    copies[key] = copies.get(key, 0) + 1
                    stored[key] = True
            elif isinstance(event, Removed):
                for key in event.hashes:
                    copies[key] -= 1
                    if not copies[key]:
                        stored[key] = False
        if stored:
            self._batch[row] += 1
            number = self._batch[row]
            come = [BlockKey(key) for key, there in stored.items() if there]
            gone = [BlockKey(key) for key, there in stored.items() if not there]
            cache = Cache(self.endpoints[row], BLOCK)
            await self.state.apply([Delta(cache, 1, number, number, stored=come, removed=gone)])

    async def pick(self, name: str, flight: Flight) -> None:
        endpoint = self.endpoints[flight.row]
        reservation = ReservationId(name)
        context = Context(flight.item.prompt_tokens)
        await self.state.reserve(reservation, Candidates([endpoint], [flight.uncached_tokens]), context=context)
        keys = [BlockKey(key) for key in flight.keys[: flight.prompt_blocks]]
        self.progress.watch(reservation, endpoint, flight.item.prompt_tokens, BLOCK, keys, flight.predicted_tokens)
        if missing := keys[flight.hit_blocks :]:
            self.state.expect(endpoint, BLOCK, missing, 1e9, reservation)


def chats(requests: int, seed: int) -> Workload:
    """Turns of sessions that share one of three heads; every prompt repeats the one before it."""
    rng = Random(seed)
    fresh = iter(range(1000, 1 << 40))
    heads = [[next(fresh) for _ in range(rng.randrange(4, 40))] for _ in range(3)]
    sessions: list[list[int]] = []
    items, at_s = [], 0.0
    for _ in range(requests):
        at_s += rng.expovariate(8.0) if rng.random() < 0.8 else 0.0
        if not sessions or rng.random() < 0.3:
            sessions.append(list(rng.choice(heads)))
        session = rng.choice(sessions)
        session += [next(fresh) for _ in range(rng.randrange(1, 60))]
        tokens = len(session) * BLOCK - rng.randrange(BLOCK)
        items.append(Item(at_s, tokens, rng.randrange(1, 80), tuple(session), tokens))
    return Workload("chats", BLOCK, items)


@pytest.mark.parametrize("name", ["lmetric", "marginal", "round-robin", "random"])
def test_hits_and_loads_are_those_of_the_pickers_own_state(name: str) -> None:
    with asyncio.Runner() as runner:
        workload = chats(400, seed=3)
        decided: list[Flight] = []

        def compare(snapshot: Snapshot, flight: Flight, ranking: Ranking) -> None:
            runner.run(picker.catch_up(flight.at_s))
            chains = Chains(
                flight.item.prompt_tokens, {BLOCK: [BlockKey(k) for k in flight.keys[: flight.prompt_blocks]]}
            )
            hits = picker.state.hits(chains)
            loads = picker.state.loads(picker.endpoints)
            assert list(snapshot.hit_tokens) == [hits.get(e, 0) for e in picker.endpoints]
            assert list(snapshot.in_flight) == [load.in_flight for load in loads]
            assert list(snapshot.queued_tokens) == [load.queued_tokens for load in loads]
            assert list(snapshot.context_tokens) == [load.context_tokens for load in loads]
            # Stored to its last full block, a prompt counts as prefilled; now and then its tail takes one step more.
            later = [told - load.prefilling for told, load in zip(snapshot.prefilling, loads, strict=True)]
            assert set(later) <= {0, 1}
            runner.run(picker.pick(str(len(decided)), flight))
            decided.append(flight)

        replay = Replay(workload, policy(name), Setup(pods=3, preset="a10-qwen2.5-7b"), 1.0, 0, compare)
        picker = Picker(replay._fleet, 3)
        runner.run(picker.start())
        run = replay.run()
    assert len(run.flights) == 400
    assert sum(flight.predicted_tokens for flight in decided) > 0.3 * sum(item.prompt_tokens for item in workload.items)


def test_the_pool_of_that_test_evicts() -> None:
    """Else it would say nothing of removed blocks."""
    workload = chats(400, seed=3)
    distinct = {key for item in workload.items for key in item.prefixes}
    assert len(distinct) > PRESETS["a10-qwen2.5-7b"].limits(BLOCK).num_gpu_blocks


def test_a_removed_copy_leaves_the_others() -> None:
    residency = Residency()
    residency.apply([Stored("a", 0, [1, 2], None), Stored("b", 0, [1, 2, 3], None)])
    residency.apply([Removed([2, 1])])
    assert residency.depth([1, 2, 3, 4], 4) == 3
    residency.apply([Removed([3, 2])])
    assert residency.depth([1, 2, 3, 4], 4) == 1
    residency.apply([Removed([1])])
    assert residency.depth([1, 2, 3, 4], 4) == 0


@pytest.mark.parametrize("held", [0, 1, 2, 7, 8, 9])
def test_depth_is_found_by_bisection(held: int) -> None:
    residency = Residency()
    keys = list(range(100, 109))
    residency.apply([Stored("a", 0, keys[:held], None)])
    assert residency.depth(keys, 9) == held
    assert residency.depth(keys, 5) == min(5, held)
    assert residency.depth(keys, 0) == 0
