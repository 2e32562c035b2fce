"""What is written to the log is what is read from it; deltas are cut so that nothing is lost or out of order."""

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.state.protocol import Cache, Delta
from multipick_epp.state.redis.parts import OPERATIONS_A_CALL, calls_of
from multipick_epp.state.redis.records import (
    cache_name,
    cache_named,
    delta_record,
    expect_record,
    mode_record,
    pack_keys,
    read_delta,
    read_expect,
    read_mode,
    unpack_keys,
)
from multipick_epp.types import BlockKey, Endpoint, Mode, ReplicaId

TEXT = st.text(max_size=20).filter(lambda text: text.isprintable())
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
