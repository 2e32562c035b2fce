"""Optimistic entries count until the engine confirms or denies them, or their time is up."""

import pytest
from multipick_epp.state import optimistic as optimistic_module
from multipick_epp.state.mirror import Mirror
from multipick_epp.state.optimistic import OptimisticEntries
from multipick_epp.types import BlockKey, Endpoint, ReservationId

KEYS = [BlockKey(key) for key in range(6)]
ONE, TWO = ReservationId("one"), ReservationId("two")


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


@pytest.fixture
def bit(mirror: Mirror) -> int:
    bit = mirror.new_bit(Endpoint("pod:8000"))
    assert bit is not None
    return bit


@pytest.fixture
def expected(mirror: Mirror) -> OptimisticEntries:
    return OptimisticEntries(mirror)


def held(mirror: Mirror, bit: int) -> list[int]:
    return [key for key in KEYS if mirror.mask(key) & bit]


def test_they_end_at_their_deadline(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    expected.add(bit, KEYS[:3], 10.0)
    expected.add(bit, KEYS[2:5], 20.0)
    expected.expire(9.9)
    assert held(mirror, bit) == [0, 1, 2, 3, 4]
    expected.expire(10.0)
    assert held(mirror, bit) == [2, 3, 4], "the later prompt expects block 2 as well"
    expected.expire(20.0)
    assert held(mirror, bit) == []
    assert len(expected) == 0


def test_a_block_that_a_prompt_names_twice_is_expected_once(
    mirror: Mirror, bit: int, expected: OptimisticEntries
) -> None:
    """No prompt of ours does; what stands in the store may."""
    twice = [KEYS[0], KEYS[1], KEYS[0]]
    expected.add(bit, twice, 10.0)
    expected.add(bit, twice, 20.0, ONE)
    assert len(expected) == 2
    expected.expire(10.0)
    assert held(mirror, bit) == [0, 1]
    assert expected.withdraw(ONE) == [0, 1]
    assert (held(mirror, bit), len(expected)) == ([], 0)


def test_an_earlier_deadline_shortens_nothing(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    expected.add(bit, KEYS[:2], 20.0)
    expected.add(bit, KEYS[:2], 10.0)
    expected.expire(15.0)
    assert held(mirror, bit) == [0, 1]
    expected.expire(20.0)
    assert held(mirror, bit) == []


def test_what_the_engine_told_is_not_taken_back(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    mirror.store(bit, KEYS[:1])
    expected.add(bit, KEYS[:4], 10.0)
    assert len(expected) == 3
    expected.settle(bit, KEYS[1:3])
    mirror.store(bit, KEYS[1:3])
    expected.expire(10.0)
    assert held(mirror, bit) == [0, 1, 2]


def test_what_the_engine_removed_stays_removed(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    expected.add(bit, KEYS[:2], 10.0)
    expected.settle(bit, KEYS[:1])
    mirror.remove(bit, KEYS[:1])
    mirror.store(bit, KEYS[:1])
    expected.expire(10.0)
    assert held(mirror, bit) == [0]


def test_another_caches_bit_is_not_touched(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    expected.add(bit, KEYS[:2], 10.0)
    expected.forget(bit)
    mirror.remove(bit, KEYS[:2])
    mirror.retire(bit)
    assert mirror.new_bit(Endpoint("other:8000")) == bit
    mirror.store(bit, KEYS[:2])
    expected.expire(10.0)
    assert held(mirror, bit) == [0, 1]
    assert len(expected) == 0


def test_there_is_a_bound(
    mirror: Mirror, bit: int, expected: OptimisticEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimistic_module, "EXPECTED_AT_MOST", 3)
    expected.add(bit, KEYS[:2], 50.0)
    expected.add(bit, KEYS[2:4], 10.0)
    assert held(mirror, bit) == [0, 1], "the nearest deadline goes first"
    expected.add(bit, KEYS, 90.0)
    assert len(expected) <= 3


def test_what_one_prompt_alone_expects_is_withdrawn_with_it(
    mirror: Mirror, bit: int, expected: OptimisticEntries
) -> None:
    expected.add(bit, KEYS[:4], 10.0, ONE)
    expected.add(bit, KEYS[2:6], 10.0, TWO)
    assert expected.withdraw(ONE) == KEYS[:4]
    assert held(mirror, bit) == [2, 3, 4, 5]
    assert expected.withdraw(ONE) == []
    assert expected.withdraw(TWO) == KEYS[2:6]
    assert held(mirror, bit) == []
    assert len(expected) == 0
    expected.expire(10.0)
    assert not expected._prompts
    assert not expected._owned


def test_what_was_stored_is_not_withdrawn(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    mirror.store(bit, KEYS[:1])
    expected.add(bit, KEYS[:4], 10.0, ONE)
    expected.settle(bit, KEYS[1:3])
    assert expected.withdraw(ONE) == [3]
    assert held(mirror, bit) == [0, 1, 2]


def test_what_was_stored_removed_and_expected_again_is_the_later_prompts(
    mirror: Mirror, bit: int, expected: OptimisticEntries
) -> None:
    expected.add(bit, KEYS[:2], 10.0, ONE)
    expected.settle(bit, KEYS[:2])
    mirror.remove(bit, KEYS[:2])
    expected.add(bit, KEYS[:2], 10.0, TWO)
    assert expected.withdraw(ONE) == []
    assert held(mirror, bit) == [0, 1]


def test_what_an_owner_expects_of_two_caches_is_withdrawn_of_both(
    mirror: Mirror, bit: int, expected: OptimisticEntries
) -> None:
    other = mirror.new_bit(Endpoint("pod:8000"))
    assert other is not None
    expected.add(bit, KEYS[:2], 10.0, ONE)
    expected.add(other, KEYS[:2], 10.0, ONE)
    assert expected.withdraw(ONE) == KEYS[:2]
    assert held(mirror, bit) == held(mirror, other) == []


def test_what_nobody_owns_cannot_be_withdrawn(mirror: Mirror, bit: int, expected: OptimisticEntries) -> None:
    expected.add(bit, KEYS[:2], 10.0)
    assert expected.withdraw(ONE) == []
    assert held(mirror, bit) == [0, 1]


@pytest.mark.parametrize("given_up", ["expired", "withdrawn"])
def test_of_a_cache_that_is_gone_nothing_is_taken_back(
    given_up: str, mirror: Mirror, bit: int, expected: OptimisticEntries
) -> None:
    expected.add(bit, KEYS[:2], 10.0, ONE)
    expected.forget(bit)
    mirror.retire(bit)
    if given_up == "expired":
        expected.expire(10.0)
    else:
        assert expected.withdraw(ONE) == []
    assert len(expected) == 0
