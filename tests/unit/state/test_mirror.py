"""Bits come, go and come back without ever naming another cache's blocks."""

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.state.lookup import SHARDS
from multipick_epp.state.mirror import KEYS_A_SHARD, KEYS_A_SWEEP, Mirror, indexes
from multipick_epp.types import BlockKey, Endpoint


def keys(*numbers: int) -> list[BlockKey]:
    return [BlockKey(number) for number in numbers]


def sweep_all(mirror: Mirror) -> None:
    for _ in range(2 * SHARDS):
        mirror.sweep()


def new_bit(mirror: Mirror, pod: str = "a") -> int:
    bit = mirror.new_bit(Endpoint(pod))
    assert bit is not None
    return bit


def test_what_is_stored_is_held_until_removed() -> None:
    mirror = Mirror()
    one, two = new_bit(mirror), new_bit(mirror)
    mirror.store(one, keys(1, 2, 2))
    mirror.store(two, keys(2, 3))
    assert [mirror.mask(key) for key in keys(1, 2, 3, 4)] == [one, one | two, two, 0]
    assert (mirror.keys_of[one], mirror.keys_of[two], len(mirror)) == (2, 2, 3)
    mirror.remove(one, keys(1, 1, 2, 9))
    assert [mirror.mask(key) for key in keys(1, 2, 3)] == [0, two, two]
    assert (mirror.keys_of[one], len(mirror)) == (0, 2)


def test_a_retired_bit_is_used_again_only_when_it_is_in_no_mask() -> None:
    mirror = Mirror()
    one, two = new_bit(mirror), new_bit(mirror)
    mirror.store(one, keys(*range(100)))
    mirror.store(two, keys(5))
    mirror.retire(one)
    assert new_bit(mirror) not in (one, two)
    sweep_all(mirror)
    assert [mirror.mask(key) for key in keys(5, 6)] == [two, 0]
    assert len(mirror) == 1
    assert new_bit(mirror) == one


def test_a_bit_without_keys_is_free_at_once() -> None:
    mirror = Mirror()
    one = new_bit(mirror)
    mirror.retire(one)
    assert new_bit(mirror) == one


def test_bits_retired_during_a_sweep_wait_for_the_next() -> None:
    mirror = Mirror()
    one, two = new_bit(mirror, "a"), new_bit(mirror, "b")
    many = [BlockKey(SHARDS * number) for number in range(KEYS_A_SWEEP)]  # all in the first shard: a sweep of its own
    mirror.store(one, many)
    mirror.store(two, [*many, BlockKey(SHARDS - 1)])
    mirror.retire(one)
    mirror.sweep()
    mirror.retire(two)
    for _ in range(SHARDS * KEYS_A_SHARD // KEYS_A_SWEEP):
        mirror.sweep()
    assert [new_bit(mirror, "c"), new_bit(mirror, "d")] == [one, 1 << 2]
    sweep_all(mirror)
    assert len(mirror) == 0
    assert new_bit(mirror, "e") == two


@given(st.integers(0, 2**300))
def test_indexes_are_the_set_bits(mask: int) -> None:
    assert indexes(mask) == [index for index in range(301) if mask >> index & 1]
