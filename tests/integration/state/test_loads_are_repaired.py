"""Whatever happens to the keys of the loads: within seconds they are the sum of what living pickers charge again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from multipick_epp.state.protocol import Candidates, Context, EqualPrompt
from multipick_epp.state.redis import RedisState, parse_url
from multipick_epp.state.redis.connection import REPLY_BYTES, Connection, LostError
from multipick_epp.state.redis.figures import CONTEXTS, IN_FLIGHT, fields_of, figure, read_load
from multipick_epp.types import BlockKey, Endpoint, Load, ReplicaId, ReservationId
from multipick_sim.local.valkey import Valkey

Start = Callable[..., Awaitable[RedisState]]
Eventually = Callable[..., Awaitable[None]]
Client = Callable[[str], Awaitable[Connection]]

PODS = [Endpoint(f"pod-{number}:8000") for number in range(6)]
TAG = "{kv:pool}"
LOAD, LEASES, ROUTED, GENERATION = f"{TAG}:loads", f"{TAG}:leases", f"{TAG}:routed", f"{TAG}:gen"
CHARGES = f"{TAG}:charges:replica-1"
OTHER = f"{TAG}:other"
POD = PODS[0]
LONG = b"9" * (REPLY_BYTES + (4 << 20))

VANDALISM: dict[str, list[tuple[Any, ...]]] = {
    "loads deleted": [("DEL", LOAD)],
    "loads of another type": [("SET", LOAD, "x")],
    "loads a list": [("RPUSH", OTHER, "x"), ("RENAME", OTHER, LOAD)],
    "load is text": [("HSET", LOAD, POD, "many")],
    "load is empty": [("HSET", LOAD, POD, "")],
    "load is a float": [("HSET", LOAD, POD, "1.5")],
    "load has an exponent": [("HSET", LOAD, POD, "1e3")],
    "load is no number": [("HSET", LOAD, POD, "nan")],
    "load is infinite": [("HSET", LOAD, POD, "inf")],
    "load is hexadecimal": [("HSET", LOAD, POD, "0x10")],
    "load is negative": [("HSET", LOAD, POD, -31 * IN_FLIGHT)],
    "load is 2^53": [("HSET", LOAD, POD, 2**53)],
    "load is the largest": [("HSET", LOAD, POD, 2**63 - 1)],
    "load is larger than any": [("HSET", LOAD, POD, "9" * 400)],
    "load is much too long": [("HSET", LOAD, POD, "9" * (40 << 20))],
    "load is bytes": [("HSET", LOAD, POD, b"\xff\x00")],
    "load is too small": [("HSET", LOAD, POD, 1)],
    "load is too large": [("HSET", LOAD, POD, 9 * IN_FLIGHT + 9)],
    "load of a stranger": [("HSET", LOAD, b"\xff\xfe", 5 * IN_FLIGHT), ("HSET", LOAD, "who", "what")],
    "a load deleted": [("HDEL", LOAD, POD)],
    "contexts deleted": [("HDEL", LOAD, POD + CONTEXTS)],
    "contexts are junk": [("HSET", LOAD, POD + CONTEXTS, "1e9")],
    "contexts are too large": [("HINCRBY", LOAD, POD + CONTEXTS, 9 * IN_FLIGHT + 9)],
    "contexts charged are gone": [("HDEL", CHARGES, *(pod + CONTEXTS for pod in PODS))],
    "contexts charged are too large": [("HINCRBY", CHARGES, POD + CONTEXTS, 9 * IN_FLIGHT + 9)],
    "contexts of a stranger": [("HSET", LOAD, "who" + CONTEXTS, 5), ("HSET", LOAD, CONTEXTS, 5)],
    "columns of a younger picker": [("HSET", LOAD, POD + " heat", 77), ("HSET", CHARGES, POD + " heat", 77)],
    "charges deleted": [("DEL", CHARGES)],
    "charges of another type": [("SET", CHARGES, "x")],
    "charges a set": [("SADD", OTHER, "x"), ("RENAME", OTHER, CHARGES)],
    "charges are junk": [("HSET", CHARGES, pod, "junk") for pod in PODS],
    "a charge is much too long": [("HSET", CHARGES, POD, "9" * (40 << 20))],
    "a charge's name is much too long": [("HSET", CHARGES, LONG, 1)],
    "a charge is negative": [("HSET", CHARGES, POD, -5)],
    "a charge is too large": [("HSET", CHARGES, POD, 77 * IN_FLIGHT)],
    "a stranger is charged": [("HSET", CHARGES, b"\xff", 3 * IN_FLIGHT), ("HSET", CHARGES, "who", "what")],
    "leases deleted": [("DEL", LEASES)],
    "leases of another type": [("SET", LEASES, "x")],
    "a lease deleted": [("HDEL", LEASES, "replica-1")],
    "a lease is junk": [("HSET", LEASES, "replica-1", b"\xff")],
    "a lease of nobody": [("HSET", LEASES, b"\xff\x00", "9" * 30), ("HSET", LEASES, "", "")],
    "a lease is much too long": [("HSET", LEASES, "who", LONG)],
    "a lease's name is much too long": [("HSET", LEASES, LONG, 1)],
    "more leases than pickers": [("HSET", LEASES, f"picker-{number}", 1) for number in range(300)],
    "routed deleted": [("DEL", ROUTED)],
    "routed of another type": [("SET", ROUTED, "x")],
    "routed is junk": [("HSET", ROUTED, 77, b"\xff")],
    "generation of another type": [("SADD", OTHER, "x"), ("RENAME", OTHER, GENERATION)],
    "generation is much too long": [("SET", GENERATION, LONG)],
    "all keys deleted": [("DEL", LOAD, LEASES, ROUTED, *(f"{TAG}:charges:replica-{n}" for n in range(3)))],
    "all data lost": [("FLUSHALL",)],
}


class Traffic:
    """Requests of one picker, each with a life of its own."""

    def __init__(self, name: str, state: RedisState) -> None:
        self.charges: dict[ReservationId, tuple[Endpoint, int]] = {}
        self.failed: list[BaseException] = []
        self._name = name
        self._state = state
        self._rng = Random(name)
        self._ended = asyncio.Event()
        self._tasks = [asyncio.create_task(self._requests(number)) for number in range(8)]

    async def end(self) -> None:
        self._ended.set()
        await asyncio.gather(*self._tasks)

    async def _requests(self, lane: int) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            await self._request(ReservationId(f"{self._name}-{lane}-{number}"))

    async def _request(self, reservation: ReservationId) -> None:
        rng, state = self._rng, self._state
        candidates = Candidates(rng.sample(PODS, 4), [rng.randint(1, 900) for _ in range(4)])
        equal_prompt = EqualPrompt(BlockKey(rng.randint(1, 99)), 1)
        reserved = await state.reserve(reservation, candidates, equal_prompt, Context(rng.randint(1, 9000)))
        self.charges[reservation] = (candidates.endpoints[reserved.index], reserved.new_tokens)
        for act in rng.choices(("progress", "recharge", "move", "wait"), k=3):
            await asyncio.sleep(rng.random() * 0.03)
            endpoint, tokens = self.charges[reservation]
            if act == "progress":
                tokens = rng.randint(0, tokens)
                state.progress(reservation, tokens)
            elif act == "recharge":
                tokens = rng.randint(0, 900)
                state.recharge(reservation, tokens)
            elif act == "move":
                endpoint = rng.choice(PODS)
                state.move(reservation, endpoint)
            self.charges[reservation] = (endpoint, tokens)
        state.release(reservation)
        del self.charges[reservation]


def total(traffic: Sequence[Traffic]) -> dict[Endpoint, int]:
    loads = Counter[Endpoint]()
    for each in traffic:
        for endpoint, tokens in each.charges.values():
            loads[endpoint] += figure(tokens, 1)
    return {endpoint: number for endpoint, number in loads.items() if number}


async def hurt(url: str, client: Client, what: str) -> None:
    for command in VANDALISM[what]:
        with suppress(LostError):  # what an earlier command did may have been mended already, or not
            await (await client(url)).call(*command)


async def stored(connection: Connection) -> dict[bytes, bytes]:
    async with asyncio.timeout(120):
        while await connection.call("TYPE", LOAD) != b"hash":
            await asyncio.sleep(0.01)
    fields: Any = await connection.call("HGETALL", LOAD)
    return {name: text for name, text in zip(fields[::2], fields[1::2], strict=True) if name and text != b"0"}


def as_stored(loads: dict[str, int]) -> dict[bytes, bytes]:
    return {field.encode(): b"%d" % number for field, number in loads.items()}


@pytest.mark.parametrize("what", VANDALISM)
async def test_vandalism_between_requests(
    what: str,
    server: Valkey,
    replica: Start,
    client: Client,
    eventually: Eventually,
) -> None:
    """Three pickers hold reservations; after the keys were hurt the loads are what they hold, and then nothing."""
    states = [await replica(server.url) for _ in range(3)]
    for number in range(30):
        state, reservation = states[number % 3], ReservationId(f"r{number}")
        await state.reserve(reservation, Candidates(PODS, [100] * len(PODS)), context=Context(3000))
    right = {pod: Load(500, 5, 15_000, 5) for pod in PODS}
    connection = await client(server.url)
    await hurt(server.url, client, what)

    async def are(loads: dict[Endpoint, Load]) -> None:
        """In the store, and everywhere."""
        exact = as_stored({field: number for pod, load in loads.items() for field, number in fields_of(pod, load)})
        async with asyncio.timeout(120):  # what is right by chance may have to be put right twice
            while await stored(connection) != exact or any(
                {pod: state.load(pod) for pod in PODS} != loads for state in states
            ):
                await asyncio.sleep(0.01)

    await are(right)
    for number in range(30):
        states[number % 3].release(ReservationId(f"r{number}"))
    await are({pod: Load() for pod in PODS})
    await eventually(lambda: all(state.degraded is None for state in states))


@pytest.mark.parametrize("seed", range(2))
async def test_vandalism_amid_traffic(
    seed: int, server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    """No request fails, no load is ever below 0 or beyond reason, and a moment's rest shows the exact sums."""
    rng = Random(seed)
    states = [await replica(server.url) for _ in range(3)]
    victim = RedisState(parse_url(server.url), "pool", ReplicaId("victim"))
    await victim.start()
    for number in range(30):
        await victim.reserve(ReservationId(f"victim-{number}"), Candidates(PODS, [50] * len(PODS)), None, Context(900))
    for task in victim._tasks:  # it dies without a word
        task.cancel()
    await asyncio.gather(*victim._tasks, return_exceptions=True)
    connection = await client(server.url)
    traffic = [Traffic(f"seed-{seed}-{number}", state) for number, state in enumerate(states)]
    for what in rng.sample(sorted(VANDALISM), 12):
        await hurt(server.url, client, what)
        for _ in range(20):
            await asyncio.sleep(0.01)
            seen = [load for state in states for load in state.loads(PODS)]
            assert all(load.queued_tokens >= 0 and load.in_flight >= 0 for load in seen)
    await connection.call("DEL", LOAD)

    def near(state: RedisState) -> bool:
        """As far as can be told of loads that change all the time."""
        held = total(traffic)
        return all(abs(state.load(pod).in_flight - read_load(held.get(pod, 0)).in_flight) <= 12 for pod in PODS)

    await eventually(lambda: all(map(near, states)))
    for each in traffic:
        await each.end()
    async with asyncio.timeout(120):
        while await stored(connection):
            await asyncio.sleep(0.01)
    await eventually(lambda: all(set(state.loads(PODS)) == {Load()} for state in states))
    assert sum(state.stats.load_repairs for state in states)


async def test_without_harm_nothing_is_repaired(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    states = [await replica(server.url) for _ in range(3)]
    traffic = [Traffic(f"calm-{number}", state) for number, state in enumerate(states)]
    connection = await client(server.url)
    first = await connection.call("HGET", LEASES, "replica-0")
    async with asyncio.timeout(120):
        while int(await connection.call("HGET", LEASES, "replica-0")) < int(first) + 4:  # four rounds of checks
            await asyncio.sleep(0.05)
    for each in traffic:
        await each.end()
    await eventually(lambda: all(set(state.loads(PODS)) == {Load()} for state in states))
    if not any(state.stats.outages for state in states):  # a machine that is too busy loses connections
        assert [(state.stats.load_repairs, state.stats.recharged) for state in states] == [(0, 0)] * 3


@pytest.mark.parametrize("stamp", ["99999999999999", b"\xff\x00"])
async def test_a_dead_pickers_charges_go_whatever_its_lease_says(
    stamp: Any, server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    survivor = await replica(server.url)
    victim = RedisState(parse_url(server.url), "pool", ReplicaId("victim"))
    await victim.start()
    for number in range(30):
        await victim.reserve(ReservationId(f"victim-{number}"), Candidates(PODS, [50] * len(PODS)), None, Context(900))
    for task in victim._tasks:
        task.cancel()
    await asyncio.gather(*victim._tasks, return_exceptions=True)
    connection = await client(server.url)
    await connection.call("HSET", LEASES, "victim", stamp)
    await eventually(lambda: sum(survivor.load(pod).in_flight for pod in PODS) == 30)
    await eventually(lambda: survivor.stats.reaped == 30)
    await eventually(lambda: set(survivor.loads(PODS)) == {Load()})
    assert await connection.call("EXISTS", f"{TAG}:charges:victim") == 0


async def test_charges_of_a_dead_picker_without_a_lease_do_not_count(
    server: Valkey, replica: Start, client: Client, eventually: Eventually
) -> None:
    survivor = await replica(server.url)
    await survivor.reserve(ReservationId("r"), Candidates([POD], [7]))
    connection = await client(server.url)
    await connection.call("HSET", f"{TAG}:charges:gone", POD, 9 * IN_FLIGHT)
    await connection.call("HINCRBY", LOAD, POD, 9 * IN_FLIGHT)
    await eventually(lambda: survivor.load(POD) == Load(7, 10))
    await eventually(lambda: survivor.load(POD) == Load(7, 1))
    assert survivor.stats.load_repairs == 1
