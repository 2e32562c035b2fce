"""Whatever happens in whatever order: the figures add up, and both states say the same."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.ledger import Ledger, negative
from multipick_epp.state.memory import MemoryState
from multipick_epp.state.protocol import Applied, Candidates, Context, Delta, Marginal, Reserved, State
from multipick_epp.state.redis.address import parse_url
from multipick_epp.state.redis.figures import CONTEXTS, fields_of, read_load
from multipick_epp.state.redis.keys import keys_of
from multipick_epp.state.redis.scripts import install, load
from multipick_epp.state.redis.server import open_connection
from multipick_epp.state.redis.turns import Outcome, Reserve, Turns
from multipick_epp.types import BlockKey, Endpoint, Load, ReservationId
from multipick_sim.local.valkey import Valkey

Eventually = Callable[[Callable[[], object]], Awaitable[None]]

PODS = [Endpoint(f"pod-{number}:8000") for number in range(4)]
FIELDS = [*PODS, *(pod + CONTEXTS for pod in PODS)]
CHAIN = [BlockKey((7 << 56) + index) for index in range(12)]

# One server and one pool serve all examples of a test: each example leaves nothing behind, which is the point.
many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- reservations of several replicas, some of which die


@dataclass(frozen=True)
class Act:
    verb: str
    replica: int
    reservation: int
    pod: int
    tokens: int
    context: Context | None


ACTS = st.builds(
    Act,
    st.sampled_from(["reserve", "reserve", "reserve", "progress", "move", "release", "release", "drop", "die"]),
    st.integers(0, 2),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 1000),
    st.sampled_from([None, Context(700), Context(1, Marginal(1, 0)), Context(5000, Marginal(3, 1234))]),
)


def told(_reserve: Reserve, outcome: Outcome) -> Reserved:
    winner, new_tokens, its_load = outcome
    return Reserved(winner, new_tokens, read_load(its_load))


@many
@given(acts=st.lists(ACTS, max_size=40))
async def test_the_stores_figures_are_the_sum_of_what_is_reserved(server: Valkey, acts: list[Act]) -> None:
    """The scripts themselves, against a ledger for each replica; a drop voids, a death is reaped."""
    keys = keys_of(uuid.uuid4().hex)
    turn, reap, check = scripts = [load(name, when_full=True) for name in ("turn", "reap", "check")]
    connection = await open_connection(parse_url(server.url), keys.tag, 10.0)
    await install(connection, *scripts)
    names = [b"%d" % replica for replica in range(3)]
    ledgers = [Ledger() for _ in names]
    turns = [Turns(connection, turn, (keys.load, keys.charges(name), keys.routed), told, Mock()) for name in names]

    def total(pod: Endpoint) -> Load:
        return Load(*map(sum, zip(*[ledger.load(pod) for ledger in ledgers], strict=True)))

    def totals(pods: Sequence[Endpoint]) -> Sequence[Load]:
        return [*map(total, pods)]

    def tell(replica: int, endpoint: Endpoint, change: Load) -> None:
        for field, number in fields_of(endpoint, change):
            turns[replica].change(field, number)

    async def lease(replica: int) -> None:
        await connection.call("HSET", keys.leases, names[replica], "1")

    async def reap_all(replica: int) -> None:
        command = reap.command((keys.load, keys.leases, keys.charges(names[replica])), names[replica], "1", 100)
        assert await connection.call(*command) == len(ledgers[replica].charges)
        ledgers[replica] = Ledger()

    for replica in range(3):
        await lease(replica)
    for act in acts:
        ledger, name, pod = ledgers[act.replica], ReservationId(f"r{act.reservation}"), PODS[act.pod]
        before = ledger.charges.get(name)
        match act.verb:
            case "reserve" if before is None:
                candidates = Candidates(PODS, [act.tokens] * len(PODS))
                expected = ledger.reserve(name, candidates, totals, act.context)
                assert await turns[act.replica].reserve(name, candidates, None, act.context) == expected
            case "progress" | "move" if before is not None:
                moves = act.verb == "move"
                after = before._replace(endpoint=pod) if moves else before._replace(queued_tokens=act.tokens)
                ledger.charge(name, after)
                tell(act.replica, before.endpoint, negative(before.load))
                tell(act.replica, after.endpoint, after.load)
            case "release":
                if released := ledger.release(name):
                    tell(act.replica, released.endpoint, negative(released.load))
            case "drop":
                for replica, its in enumerate(ledgers):
                    tell(replica, pod, negative(its.drop(pod)))
            case "die":
                await reap_all(act.replica)
                await lease(act.replica)  # as another that was given its name
        for each in turns:
            each.flush()
        fields = await connection.call("HGETALL", keys.load)
        found = {name.decode(): int(number) for name, number in zip(fields[::2], fields[1::2], strict=True)}
        sums = {field: number for pod in PODS for field, number in fields_of(pod, total(pod))}
        assert {field: found.get(field, 0) for field in FIELDS} == dict.fromkeys(FIELDS, 0) | sums
        arguments: tuple[Any, ...] = (keys.load, keys.leases, *map(keys.charges, names))
        assert await connection.call(*check.command(arguments, 3, *names, *FIELDS)) == 0
    for replica in range(3):
        await reap_all(replica)
    assert set(await connection.call("HVALS", keys.load)) <= {b"0"}
    assert await connection.call("EXISTS", *map(keys.charges, names)) == 0
    connection.close()


# --- one replica through `State`


@many
@given(acts=st.lists(ACTS, max_size=40), cancelled=st.sets(st.integers(0, 39)))
async def test_counters_come_back_to_zero(
    state: State, eventually: Eventually, acts: list[Act], cancelled: set[int]
) -> None:
    """Concurrent, out of order, twice, aborted: at the end nothing is left."""
    prefix = uuid.uuid4().hex
    tasks: list[asyncio.Task[Any]] = []
    for place, act in enumerate(acts):
        name, pod = ReservationId(f"{prefix}-{act.reservation}"), PODS[act.pod]
        match act.verb:
            case "reserve":
                pods = Candidates(PODS, [act.tokens] * len(PODS))
                tasks.append(asyncio.create_task(state.reserve(name, pods, None, act.context)))
            case "drop":
                tasks.append(asyncio.create_task(state.drop(pod)))
            case "progress":
                state.progress(name, act.tokens)
            case "move":
                state.move(name, pod)
            case _:
                state.release(name)
        if place % 3 == 0:
            await asyncio.sleep(0)
        if place in cancelled and tasks:
            tasks[-1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for reservation in range(6):
        state.release(ReservationId(f"{prefix}-{reservation}"))
    last = ReservationId(f"{prefix}-last")
    for pod in PODS:  # one that was given up is taken back when its answer comes
        async with asyncio.timeout(60):
            while (await state.reserve(last, Candidates([pod], [1]))).load != Load():  # what the truth itself says
                state.release(last)
        state.release(last)
    await eventually(lambda: [*state.loads(PODS)] == [Load()] * len(PODS))


# --- the index


KINDS = [
    {"medium": "GPU"},
    {"medium": "CPU"},
    {"medium": "GPU", "group": 1, "kind": "sliding_window", "window": 40},
]
POSITIONS = st.sets(st.integers(0, len(CHAIN) - 1), max_size=8)
STEPS = st.one_of(
    st.tuples(st.just("take over"), st.integers(0, 1)),
    st.tuples(
        *(st.just("apply"), st.integers(0, 1), st.integers(1, 3), st.sampled_from(range(3))),
        *(st.integers(0, 12), st.integers(0, 3), POSITIONS, POSITIONS),
    ),
    st.tuples(
        *(st.just("clear"), st.integers(0, 1), st.integers(1, 3), st.integers(0, 12)),
        st.sampled_from([None, "GPU", "CPU"]),
    ),
    st.tuples(st.just("replace"), st.integers(0, 1), st.integers(1, 3), st.integers(-1, 9), POSITIONS),
    st.tuples(st.just("drop"), st.integers(0, 1)),
)


async def take(state: State, step: Sequence[Any], pods: Sequence[Endpoint]) -> object:
    verb, pod, *rest = step
    endpoint = pods[pod]
    match verb:
        case "take over":
            tenure = await state.take_over(endpoint)
            return tenure and (tenure.epoch, tenure.last, tenure.inheritance)
        case "apply":
            epoch, kind, first, more, stored, removed = rest
            delta = Delta(
                *(Cache(endpoint, 16, **KINDS[kind]), epoch, first, first + more),
                [CHAIN[at] for at in sorted(stored)],
                [CHAIN[at] for at in sorted(removed - stored)],
            )
            return list(await state.apply([delta]))
        case "clear":
            return await state.clear(endpoint, *rest)
        case "replace":
            epoch, seq, stored = rest
            return await state.replace(
                endpoint, epoch, seq, {Cache(endpoint, 16): [CHAIN[at] for at in sorted(stored)]}
            )
        case _:
            await state.drop(endpoint)
            return None


@settings(many)
@given(steps=st.lists(STEPS, max_size=25))
async def test_both_states_judge_and_hit_alike(
    replica: Callable[[], Awaitable[State]], shared: dict[str, State], steps: list[Any]
) -> None:
    if not shared:
        shared["writer"], shared["reader"] = await replica(), await replica()
    writer, reader, memory = shared["writer"], shared["reader"], MemoryState()
    pods = [Endpoint(f"{uuid.uuid4().hex}:1"), Endpoint(f"{uuid.uuid4().hex}:2")]
    for step in steps:
        assert await take(memory, step, pods) == await take(writer, step, pods)
    mark = Cache(Endpoint(f"{uuid.uuid4().hex}:9"), 16)
    await writer.replace(mark.endpoint, 1, 0, {mark: CHAIN[:1]})
    prompt = Chains(16 * len(CHAIN) + 1, {16: CHAIN})
    for follower in (writer, reader):
        async with asyncio.timeout(60):
            while mark.endpoint not in follower.hits(prompt):
                await asyncio.sleep(0.001)
        assert {e: tokens for e, tokens in follower.hits(prompt).items() if e in pods} == memory.hits(prompt)
        assert [follower.block_size(pod) for pod in pods] == [memory.block_size(pod) for pod in pods]
    for endpoint in (*pods, mark.endpoint):
        await writer.drop(endpoint)


def test_codes_are_the_scripts() -> None:
    assert {each.name: each.value for each in Applied} == {
        "REFUSED": -2,
        "STALE": -1,
        "DUPLICATE": 0,
        "NEW": 1,
        "GAP": 2,
    }
