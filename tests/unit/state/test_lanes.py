"""An endpoint's bits fold onto its lane; bits and lanes are used again, so that no number of pods widens the masks."""

from collections.abc import Iterable
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import CACHES_AT_MOST
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.lanes import WORD, WORDS_AT_MOST, Lanes
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode

KEYS = [BlockKey(7919 * number**3) for number in range(1, 2000)]


def pod(number: int) -> Endpoint:
    return Endpoint(f"pod-{number}:8000")


def several(endpoint: Endpoint) -> list[Cache]:
    return [
        Cache(endpoint, 16),
        Cache(endpoint, 16, group=1, kind="sliding_window", window=128),
        Cache(endpoint, 16, "CPU"),
    ]


def width_of(index: LocalIndex) -> int:
    return index._mirror.lanes.width


def names(lanes: Lanes, mask: int) -> set[Endpoint]:
    return {endpoint for lane, endpoint in lanes.endpoint_at.items() if mask >> lane & 1}


@given(st.lists(st.tuples(st.integers(0, 150), st.booleans()), max_size=400), st.randoms(use_true_random=False))
def test_a_mask_folds_onto_the_endpoints_whose_bits_it_has(steps: list[tuple[int, bool]], random: Random) -> None:
    lanes = Lanes()
    held: dict[int, Endpoint] = {}
    for number, gives_back in steps:
        if gives_back and held:
            bit = random.choice(sorted(held))
            lanes.release(bit)
            lanes.free(bit)
            del held[bit]
        elif (taken := lanes.take(pod(number))) is not None:
            assert taken not in held
            held[taken] = pod(number)
    for _ in range(5):
        some = random.sample(sorted(held), random.randint(0, len(held)))
        assert names(lanes, lanes.fold(sum(some))) == {held[bit] for bit in some}
    assert {pod(number) for number in range(151) if lanes.lane(pod(number))} == set(held.values())


def test_a_released_bit_is_anothers_only_when_it_is_free() -> None:
    lanes = Lanes()
    one = lanes.take(pod(1))
    assert one
    lanes.release(one)
    assert lanes.take(pod(2)) != one
    lanes.free(one)
    assert lanes.take(pod(3)) == one
    assert lanes.width == WORD


def test_one_endpoint_has_a_bounded_number_of_bits() -> None:
    lanes = Lanes()
    bits = [lanes.take(pod(1)) for _ in range(2 * WORDS_AT_MOST)]
    assert bits.count(None) == WORDS_AT_MOST
    assert lanes.width == WORDS_AT_MOST * WORD
    assert lanes.take(pod(2)) is not None
    lanes.release(bits[5] or 0)
    lanes.free(bits[5] or 0)
    assert lanes.take(pod(1)) == bits[5]


def churn(index: LocalIndex, numbers: Iterable[int], live: int, tells: bool) -> None:
    """Pods come with their caches, or by what is routed to them alone, and go; `live` are there at a time."""
    for number in numbers:
        index.set_mode(pod(number), Mode.EXACT)
        own = KEYS[number % 100 : number % 100 + 40]
        if tells:
            for cache in several(pod(number)):
                index.change(cache, own, ())
        index.expect(pod(number), 16, own[20:], deadline=1.0 + number)
        index.expire(number)
        index.drop(pod(number - live))


def test_masks_stay_narrow_however_many_pods_come_and_go() -> None:
    for tells in (True, False):
        index = LocalIndex({}, StateStats())
        churn(index, range(300), 20, tells)
        width = width_of(index)
        churn(index, range(300, 1500), 20, tells)
        assert width_of(index) == width <= 8 * WORD
        hits = index.hits(Chains(16 * 40 + 1, {16: KEYS[1499 % 100 : 1499 % 100 + 40]}))
        expected = {pod(1480 + k): 16 * (21 + k) for k in range(20)} if tells else {}
        assert hits == expected
        for number in range(1480, 1500):
            index.drop(pod(number))
        index.expire(1e9)
        for key in KEYS[:10]:
            index.change(Cache(pod(0), 16), [key], KEYS[:1])
        assert [*index.endpoints()] == [pod(0)]
        assert len(index) == 9, "nothing is left of the others"


def test_an_endpoint_that_empties_its_caches_all_the_time_widens_masks_within_bounds() -> None:
    index = LocalIndex({}, StateStats())
    for number in range(3):
        index.change(Cache(pod(number), 16), KEYS, ())
    for turn in range(1000):
        for cache in several(pod(7)):
            index.change(cache, KEYS[turn % 50 : turn % 50 + 3], ())
            index.void(cache)
    assert width_of(index) <= 2 * CACHES_AT_MOST * WORD
    for cache in several(pod(7)):
        index.change(cache, KEYS[:4], ())
    hits = index.hits(Chains(16 * 40 + 1, {16: KEYS[:40]}))
    assert hits == {pod(n): 640 if n < 3 else 64 for n in (0, 1, 2, 7)}
