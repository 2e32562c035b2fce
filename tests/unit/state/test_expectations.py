"""Optimistic entries count until the engine confirms or denies them, or their time is up."""

import pytest
from multipick_epp.state import optimistic as optimistic_module
from multipick_epp.state.mirror import Mirror
from multipick_epp.state.optimistic import OptimisticEntries
from multipick_epp.types import BlockKey

KEYS = [BlockKey(key) for key in range(6)]


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


@pytest.fixture
def bit(mirror: Mirror) -> int:
    return mirror.new_bit()


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
    assert mirror.new_bit() == bit
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
