"""Of replicas that route equal prompts to one endpoint at the same moment, one goes on paying for them."""

from collections.abc import Awaitable, Callable, Sequence

from multipick_epp.state.redis import RedisState
from multipick_epp.types import BlockKey, Endpoint, ReservationId
from multipick_sim.local.valkey import Valkey

POD = Endpoint("pod:8000")
MARK = Endpoint("mark:8000")
KEYS = [BlockKey(number) for number in range(1, 9)]


async def test_the_replica_with_the_smallest_name_hears_of_no_other(
    server: Valkey, replica: Callable[..., Awaitable[RedisState]], eventually: Callable[..., Awaitable[None]]
) -> None:
    heard: list[list[tuple[Endpoint, Sequence[BlockKey]]]] = [[], []]
    states = [await replica(server.url) for _ in heard]  # replica-0, replica-1

    def listener(notes: list[tuple[Endpoint, Sequence[BlockKey]]]) -> Callable[[Endpoint, Sequence[BlockKey]], None]:
        return lambda endpoint, keys: notes.append((endpoint, list(keys)))

    for state, notes in zip(states, heard, strict=True):
        state.on_routed_elsewhere(listener(notes))
    states[1].expect(POD, 16, KEYS[:4], 60.0)
    states[0].expect(POD, 16, KEYS, 60.0)
    states[1].expect(MARK, 16, KEYS[:1], 60.0)  # who knows of this has heard of all before it
    await eventually(lambda: heard[1] and MARK in states[0].index.holders(KEYS[0]))
    assert [[note for note in notes if note[0] == POD] for notes in heard] == [[], [(POD, KEYS)]]


async def test_what_one_replica_withdraws_no_replica_counts(
    server: Valkey, replica: Callable[..., Awaitable[RedisState]], eventually: Callable[..., Awaitable[None]]
) -> None:
    one, two = [await replica(server.url) for _ in range(2)]
    heard: list[list[tuple[Endpoint, Sequence[BlockKey]]]] = [[], []]
    one.on_withdrawn_elsewhere(lambda endpoint, keys: heard[0].append((endpoint, list(keys))))
    two.on_withdrawn_elsewhere(lambda endpoint, keys: heard[1].append((endpoint, list(keys))))
    one.expect(POD, 16, KEYS, 60.0, ReservationId("first"))
    one.expect(POD, 16, KEYS[:2], 60.0, ReservationId("second"))
    one.expect(POD, 16, KEYS[:1], 60.0)
    await eventually(lambda: POD in two.index.holders(KEYS[-1]))
    one.withdraw(POD, ReservationId("first"))
    await eventually(lambda: POD not in two.index.holders(KEYS[-1]))
    assert [POD in two.index.holders(key) for key in KEYS[:3]] == [True, True, False]
    one.withdraw(POD, ReservationId("second"))
    await eventually(lambda: POD not in two.index.holders(KEYS[1]))
    assert POD in two.index.holders(KEYS[0])
    assert heard == [[], [(POD, KEYS), (POD, KEYS[:2])]]
