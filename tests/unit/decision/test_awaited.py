from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.decision.awaited import Awaited
from multipick_epp.types import BlockKey, ReservationId

KEYS = [BlockKey(number) for number in range(6)]
_steps = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sets(st.sampled_from(KEYS))), max_size=30)


@given(_steps)
def test_each_block_names_those_who_wait_for_it(steps: list[tuple[str, set[BlockKey]]]) -> None:
    awaited, expected = Awaited(), dict[ReservationId, set[BlockKey]]()
    for name, keys in steps:
        reservation = ReservationId(name)
        if before := expected.pop(reservation, None):
            awaited.remove(reservation, before)
        else:
            awaited.add(reservation, dict.fromkeys(keys))
            expected[reservation] = keys
        waited_for = set[BlockKey]().union(*expected.values())
        for key in KEYS:
            assert set(awaited.of(key)) == {each for each, waits in expected.items() if key in waits}
        assert awaited.leading(KEYS) == next((n for n, key in enumerate(KEYS) if key not in waited_for), len(KEYS))
        assert bool(awaited) == bool(waited_for)
