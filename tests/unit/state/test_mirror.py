"""Bits come, go and come back without ever naming another cache's blocks."""

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.state.lookup import SHARDS
from multipick_epp.state.mirror import Mirror, indexes
from multipick_epp.types import BlockKey


def keys(*numbers: int) -> list[BlockKey]:
    return [BlockKey(number) for number in numbers]


def sweep_all(mirror: Mirror) -> None:
    for _ in range(2 * SHARDS):
        mirror.sweep()


def test_what_is_stored_is_held_until_removed() -> None:
    mirror = Mirror()
    one, two = mirror.new_bit(), mirror.new_bit()
    mirror.store(one, keys(1, 2, 2))
    mirror.store(two, keys(2, 3))
    assert [mirror.mask(key) for key in keys(1, 2, 3, 4)] == [one, one | two, two, 0]
    assert (mirror.keys_of[one], mirror.keys_of[two], len(mirror)) == (2, 2, 3)
    mirror.remove(one, keys(1, 1, 2, 9))
    assert [mirror.mask(key) for key in keys(1, 2, 3)] == [0, two, two]
    assert (mirror.keys_of[one], len(mirror)) == (0, 2)


def test_a_retired_bit_is_used_again_only_when_it_is_in_no_mask() -> None:
    mirror = Mirror()
    one, two = mirror.new_bit(), mirror.new_bit()
    mirror.store(one, keys(*range(100)))
    mirror.store(two, keys(5))
    mirror.retire(one)
    assert mirror.new_bit() not in (one, two)
    sweep_all(mirror)
    assert [mirror.mask(key) for key in keys(5, 6)] == [two, 0]
    assert len(mirror) == 1
    assert mirror.new_bit() == one


def test_a_bit_without_keys_is_free_at_once() -> None:
    mirror = Mirror()
    one = mirror.new_bit()
    mirror.retire(one)
    assert mirror.new_bit() == one


def test_bits_retired_during_a_sweep_wait_for_the_next() -> None:
    mirror = Mirror()
    one, two = mirror.new_bit(), mirror.new_bit()
    mirror.store(one, keys(0))
    mirror.store(two, keys(0, SHARDS - 1))
    mirror.retire(one)
    mirror.sweep()
    mirror.retire(two)
    for _ in range(SHARDS - 1):
        mirror.sweep()
    assert mirror.new_bit() == one
    sweep_all(mirror)
    assert len(mirror) == 0
    assert mirror.new_bit() == two


@given(st.integers(0, 2**300))
def test_indexes_are_the_set_bits(mask: int) -> None:
    assert indexes(mask) == [index for index in range(301) if mask >> index & 1]
