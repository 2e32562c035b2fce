"""The sampled walk finds every prefix, and says how wrong it can be where chains have holes."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.state.lookup import SAMPLES, SHARDS, depths
from multipick_epp.types import BlockKey


def mirror_of(held: dict[int, set[int]], keys: list[BlockKey]) -> list[dict[BlockKey, int]]:
    """`held`: bit -> positions of the chain that it holds."""
    shards: list[dict[BlockKey, int]] = [{} for _ in range(SHARDS)]
    for bit, positions in held.items():
        for position in positions:
            key = keys[position]
            shards[key % SHARDS][key] = shards[key % SHARDS].get(key, 0) | bit
    return shards


def chain(count: int, seed: int = 0) -> list[BlockKey]:
    random = Random(seed)
    return [BlockKey(random.getrandbits(60)) for _ in range(count)]


def by_bit(rings: list[tuple[int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for depth, mask in rings:
        for index in range(mask.bit_length()):
            if mask >> index & 1:
                assert 1 << index not in found
                found[1 << index] = depth
    return found


def true_depth(positions: set[int], count: int) -> int:
    return next((position for position in range(count) if position not in positions), count)


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(0, 300))
def test_prefixes_are_found_exactly(reach: list[int], count: int) -> None:
    keys = chain(300)
    held = {1 << index: set(range(depth)) for index, depth in enumerate(reach)}
    found = depths(mirror_of(held, keys), keys, count, -1)
    assert by_bit(found.rings) == {bit: min(len(p), count) for bit, p in held.items() if p and count}
    assert found.holes == 0


@given(st.lists(st.sets(st.integers(0, SAMPLES - 1)), max_size=8))
def test_up_to_the_number_of_samples_no_hole_goes_unseen(positions: list[set[int]]) -> None:
    keys = chain(SAMPLES)
    held = {1 << index: each for index, each in enumerate(positions)}
    found = depths(mirror_of(held, keys), keys, SAMPLES, -1)
    exact = {bit: true_depth(each, SAMPLES) for bit, each in held.items()}
    assert by_bit(found.rings) == {bit: depth for bit, depth in exact.items() if depth}


@given(st.data(), st.integers(SAMPLES + 1, 400), st.integers(0, 9))
def test_after_any_removals_a_false_hit_is_bounded_by_the_samples(data: st.DataObject, count: int, seed: int) -> None:
    keys = chain(count, seed)
    held = {
        1 << index: set(range(reach)) - data.draw(st.sets(st.integers(0, count), max_size=40))
        for index, reach in enumerate(data.draw(st.lists(st.integers(1, count), max_size=6)))
    }
    stride = -(-count // SAMPLES)
    for bit, depth in by_bit(depths(mirror_of(held, keys), keys, count, -1).rings).items():
        positions = held[bit]
        assert depth >= true_depth(positions, count), "never less than what is there"
        assert depth == count or depth not in positions, "a hit ends where a block is missing"
        missing = set(range(depth)) - positions
        assert not any(set(range(start, start + stride)) <= missing for start in range(max(0, depth - stride + 1))), (
            "no hole inside the hit is as long as the distance of two samples"
        )


def test_a_hole_that_was_seen_is_counted() -> None:
    keys = chain(20)
    found = depths(mirror_of({1: set(range(20)) - {5}, 2: set(range(20))}, keys), keys, 20, -1)
    assert (by_bit(found.rings), found.holes) == ({1: 5, 2: 20}, 1)


def test_only_wanted_caches_are_looked_for() -> None:
    keys = chain(4)
    shards = mirror_of({1: {0, 1}, 2: {0, 1, 2, 3}}, keys)
    assert by_bit(depths(shards, keys, 4, 1).rings) == {1: 2}
    assert depths(shards, keys, 4, 0).rings == []
