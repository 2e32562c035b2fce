"""What few endpoints say of their block size does not make every request slow; what most say is always looked up."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.decision.sizes import RARE_COST_AT_MOST, SIZES_AT_MOST, TOLD_AT_MOST, HashedSizes, hashed_sizes


@pytest.mark.parametrize(
    ("endpoints", "hashed"),
    [
        ({}, []),
        ({1: 3}, [1]),  # SGLang's page size, where nobody chose another
        ({16: 255, 1: 1}, [16]),
        ({16: 255, 8: 1}, [8, 16]),
        ({16: 200, 32: 50, 64: 5, 128: 1}, [16, 32, 64, 128]),
        ({16: 250, 1: 2, 2: 2, 3: 1, 10**30: 1}, [16, 10**30]),
        ({528: 256, 16: 256}, [16, 528]),  # a hybrid model's groups
        ({16: 2, 1: 1}, [1, 16]),  # half of a small pool
        (dict.fromkeys(range(1, 100), 1), [96, 97, 98, 99]),
    ],
)
def test_sizes_are_hashed_by_how_many_have_them_and_what_they_cost(
    endpoints: dict[int, int], hashed: list[int]
) -> None:
    assert hashed_sizes(endpoints) == hashed


@given(st.dictionaries(st.integers(1, 300), st.integers(1, 300), min_size=1))
def test_rare_sizes_never_cost_more_than_their_share(endpoints: dict[int, int]) -> None:
    hashed = hashed_sizes(endpoints)
    most = max(endpoints.values())
    common = [1 / size for size in hashed if 2 * endpoints[size] >= most]
    assert len(hashed) <= SIZES_AT_MOST
    assert common
    assert sum(1 / size for size in hashed) <= (1 + RARE_COST_AT_MOST) * sum(common) + 1e-9


def test_sources_are_added_up_and_each_size_left_out_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    told = {1: 1}
    sizes = HashedSizes(lambda: {16: 4}, lambda: told)
    with caplog.at_level(logging.WARNING):
        assert [*sizes()] == [*sizes()] == [16]
        assert [record.__dict__["block_size"] for record in caplog.records] == [1]
        told = {1: 3}
        assert [*sizes()] == [1, 16]
        for cost in range(1, 1000):
            told = {16: 10_000, cost: 1, 17: 5, 18: 5, 19: 5}  # there is room for no other
            sizes()
    assert len(caplog.records) == TOLD_AT_MOST
