"""A cache that is guessed, for prompts that are routed before any event, is gone once there is a truth to go by."""

import pytest
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint

A = Endpoint("a:1")
KEYS = [BlockKey(key) for key in range(1, 5)]
GUESS, TRUTH = Cache(A, 16), Cache(A, 16, kind="mla_attention")


@pytest.fixture
def index() -> LocalIndex:
    index = LocalIndex({}, StateStats())
    index.expect(A, 16, KEYS[:2], 10.0)
    return index


def test_it_gives_way_to_what_is_loaded(index: LocalIndex) -> None:
    bit = index.fresh(TRUTH)
    assert bit is not None
    index.fill(bit, KEYS)
    index.swap(TRUTH, bit)
    assert index.caches(A) == [TRUTH]
    index.expire(10.0)
    assert index.hits(Chains(65, {16: KEYS})) == {A: 64}


@pytest.mark.parametrize("of_all", ["void", "forget", "drop_caches", "drop"])
def test_it_is_not_kept_empty(index: LocalIndex, of_all: str) -> None:
    getattr(index, of_all)(GUESS if of_all in ("void", "forget") else A)
    assert index.caches(A) == []
    index.expect(A, 16, KEYS[:2], 20.0)
    index.change(TRUTH, KEYS, ())
    assert index.caches(A) == [TRUTH]


def test_where_it_was_right_it_is_the_cache(index: LocalIndex) -> None:
    index.change(GUESS, KEYS[:1], ())
    index.change(TRUTH, KEYS[:1], ())
    assert index.caches(A) == [GUESS, TRUTH]
    index.void(GUESS)
    assert index.caches(A) == [TRUTH, GUESS]


def test_it_is_no_hindrance_to_an_endpoint_with_other_mediums(index: LocalIndex) -> None:
    index.change(Cache(A, 16, medium="CPU"), KEYS, ())
    assert index.hits(Chains(65, {16: KEYS})) == {A: 32}
    index.change(TRUTH, KEYS[:1], ())
    assert {cache for cache in index.caches(A) if cache.medium == "GPU"} == {TRUTH}
    assert index.hits(Chains(65, {16: KEYS})) == {A: 32}
