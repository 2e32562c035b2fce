"""What is written to the log is what is read from it; deltas are cut so that nothing is lost or out of order."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.state.cache import Cache
from multipick_epp.state.protocol import Delta
from multipick_epp.state.redis.parts import OPERATIONS_A_CALL, calls_of
from multipick_epp.state.redis.records import (
    HINT_KEYS,
    MALFORMED,
    cache_name,
    cache_named,
    delta_record,
    expect_record,
    is_hint_of,
    mode_record,
    pack_keys,
    read_delta,
    read_endpoint,
    read_expect,
    read_members,
    read_mode,
    unpack_keys,
)
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId

TEXT = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=20)
NAME = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40)
KEYS = st.lists(st.integers(0, 2**60 - 1).map(BlockKey), max_size=50)
CACHES = st.builds(
    Cache, NAME.map(Endpoint), st.integers(1, 4096), TEXT, st.integers(0, 99), TEXT, st.integers(0, 2**31)
)  # fmt: skip


@given(CACHES, KEYS, KEYS)
def test_deltas(cache: Cache, stored: list[BlockKey], removed: list[BlockKey]) -> None:
    record = delta_record(cache, stored, removed)
    assert read_delta(record) == (cache, stored, removed)
    assert record.endswith(pack_keys(stored) + pack_keys(removed)), "the script takes them from the end"


@given(CACHES)
def test_cache_names(cache: Cache) -> None:
    assert cache_named(cache_name(cache)) == cache
    assert cache_name(cache).startswith(b"["), "so that no fence's own field has such a name"


@given(NAME, NAME)
def test_a_prompt_that_this_replica_routed_is_told_from_others(ours: str, other: str) -> None:
    for replica in (ours, other, ours + other, ours[:-1]):
        record = expect_record(ReplicaId(replica), Endpoint("a:1"), 16, [BlockKey(7)], 30.0)
        assert is_hint_of(ours.encode(), [b"by", b"r1", b"expect", record]) is (replica == ours)
    assert not is_hint_of(ours.encode(), [b"by", b"r1", b"expect", b""])
    assert not is_hint_of(ours.encode(), [b"by", b"r1", b"withdraw", b"a:1 r1"])
    assert not is_hint_of(ours.encode(), [b"expect"])


@given(TEXT, NAME, st.integers(1, 4096), KEYS, st.integers(0, 600_000))
def test_expectations(replica: str, endpoint: str, size: int, keys: list[BlockKey], ttl_ms: int) -> None:
    record = expect_record(ReplicaId(replica), Endpoint(endpoint), size, keys, ttl_ms / 1000)
    assert read_expect(record)[:4] == (replica, endpoint, size, keys)
    assert abs(read_expect(record)[4] - ttl_ms / 1000) < 0.002


@given(NAME, st.sampled_from(Mode))
def test_modes(endpoint: str, mode: Mode) -> None:
    assert read_mode(mode_record(Endpoint(endpoint), mode)) == (endpoint, mode)


def test_keys_are_eight_bytes_little_endian() -> None:
    assert pack_keys([BlockKey(1), BlockKey(2**59)]) == bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8])
    assert unpack_keys(b"") == []


@given(st.lists(st.tuples(st.integers(0, 1300), st.integers(0, 1300)), max_size=6))
def test_deltas_are_cut_into_calls(sizes: list[tuple[int, int]]) -> None:
    deltas = [
        Delta(
            Cache(Endpoint(f"pod-{place}"), 16),
            *(7, 10 * place, 10 * place + 9),
            [BlockKey(key) for key in range(stored)],
            [BlockKey(key) for key in range(5000, 5000 + removed)],
        )
        for place, (stored, removed) in enumerate(sizes)
    ]
    calls = list(calls_of(deltas))
    assert all(sum(len(p.stored) + len(p.removed) for _, p in call) <= OPERATIONS_A_CALL for call in calls)
    parts = [(place, part) for call in calls for place, part in call]
    assert [place for place, _ in parts] == sorted(place for place, _ in parts)
    for place, delta in enumerate(deltas):
        mine = [part for at, part in parts if at == place]
        assert [key for part in mine for key in part.stored] == delta.stored
        assert [key for part in mine for key in part.removed] == delta.removed
        assert {part.first for part in mine} == {delta.first}
        assert [part.last for part in mine] == [delta.first - 1] * (len(mine) - 1) + [delta.last]


@given(CACHES, st.lists(st.one_of(st.none(), st.integers(), st.text(), st.dictionaries(st.text(), st.none()))))
def test_a_younger_versions_longer_name_is_the_same_cache(cache: Cache, more: list[object]) -> None:
    name = msgspec.json.encode([*msgspec.json.decode(cache_name(cache)), *more])
    assert cache_named(name) == cache


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"[",
        b"[]",
        b"\xff\xfe",
        b'{"endpoint":"a"}',
        b'["a:1",16,"GPU",0,"full_attention"]',
        b'["",16,"GPU",0,"full_attention",0]',
        b'["a b",16,"GPU",0,"full_attention",0]',
        b'["a\\n",16,"GPU",0,"full_attention",0]',
        b'["a:1",0,"GPU",0,"full_attention",0]',
        b'["a:1",-16,"GPU",0,"full_attention",0]',
        b'["a:1",16.5,"GPU",0,"full_attention",0]',
        b'["a:1",1e30,"GPU",0,"full_attention",0]',
        b'["a:1",99999999999999999999999,"GPU",0,"full_attention",0]',
        b'["a:1",16,null,0,"full_attention",0]',
        b'["a:1",16,"GPU","0","full_attention",0]',
        b'["a:1",16,"GPU",0,"full_attention",-1]',
        b'["' + b"a" * 300 + b'",16,"GPU",0,"full_attention",0]',
        b"[" * 4000,
        b'["a:1",16,"GPU",0,"full_attention",0,' + b"[" * 4000,
        b'["a:1",16,"GPU",0,"full_attention",0,"' + b"a" * 5000 + b'"]',
    ],
)
def test_other_bytes_are_no_cache(name: bytes) -> None:
    with pytest.raises(MALFORMED):
        cache_named(name)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_malformed(record: bytes) -> None:
    for read in (read_delta, read_expect, read_mode, read_endpoint, cache_named):
        try:
            read(record)
        except MALFORMED:
            continue


def test_a_mode_that_is_not_known_is_none_of_ours() -> None:
    assert read_mode(b"shadow a:1") == ("a:1", None)
    assert read_mode(b"\xff\xff a:1") == ("a:1", None)
    assert read_mode(b"exact a:1 since=7") == ("a:1", Mode.EXACT), "a younger version may add words"


def test_members_that_are_no_keys_are_counted_and_passed_over() -> None:
    assert read_members([b"", pack_keys([BlockKey(7)]), b"seven..", b"nine.....", pack_keys([BlockKey(8)])]) == (
        [7, 8],
        2,
    )


def test_of_a_long_prompt_the_head_is_told() -> None:
    keys = [BlockKey(key) for key in range(100_000)]
    record = expect_record(ReplicaId("r"), Endpoint("a:1"), 16, keys, 2.0)
    assert read_expect(record)[3] == keys[:HINT_KEYS]
    assert len(record) <= 14_336


@given(st.lists(st.tuples(CACHES, st.integers(0, 3)), max_size=200))
@settings(max_examples=20)
def test_an_entry_of_the_log_is_bounded_however_small_its_deltas_are(deltas: list[tuple[Cache, int]]) -> None:
    for call in calls_of([Delta(cache, 1, 0, 0, [BlockKey(1)] * count) for cache, count in deltas]):
        size = sum(16 + len(delta_record(part.cache, part.stored, part.removed)) for _, part in call)
        assert size <= 4_500
