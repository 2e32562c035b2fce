"""A bit leads to the endpoint whose cache it is now, however often its mask was named before."""

from multipick_epp.blocks import Chains
from multipick_epp.state.caches import MANY, MASKS_AT_MOST, Caches
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.protocol import Cache
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode

KEYS = [BlockKey(key) for key in range(1, 10)]
PODS = [Endpoint(f"pod-{number}:1") for number in range(2 * MANY)]


def test_a_mask_is_named_anew_when_one_of_its_bits_is_another_caches() -> None:
    caches = Caches()
    for number, pod in enumerate(PODS):
        caches.assign(Cache(pod, 16), 1 << number)
    everybody = (1 << len(PODS)) - 1
    assert [*caches.endpoints_of(everybody)] == [*caches.endpoints_of(everybody)] == PODS
    caches.forget(Cache(PODS[3], 16))
    assert [*caches.endpoints_of(everybody & ~8)] == PODS[:3] + PODS[4:]
    caches.assign(Cache(Endpoint("new:1"), 16), 8)
    assert [*caches.endpoints_of(everybody)] == [*PODS[:3], "new:1", *PODS[4:]]


def test_any_number_of_masks_is_named_right() -> None:
    caches = Caches()
    for number, pod in enumerate(PODS):
        caches.assign(Cache(pod, 16), 1 << number)
    for _ in range(2):
        for shift in range(3 * MASKS_AT_MOST):
            mask = (1 << len(PODS)) - 1 & ~(shift & 7) & ~((shift >> 3) << 20)
            assert [*caches.endpoints_of(mask)] == [pod for at, pod in enumerate(PODS) if mask >> at & 1]


def test_each_of_many_that_share_a_head_has_its_own_hit() -> None:
    index = LocalIndex({}, StateStats())
    for number, pod in enumerate(PODS):
        index.set_mode(pod, Mode.APPROX if number % 3 else Mode.EXACT)
        index.change(Cache(pod, 16), KEYS[: 2 + number % 5], ())
    chains = Chains(16 * len(KEYS) + 1, {16: KEYS})
    for _ in range(2):
        hits = index.hits(chains)
        assert {pod: (hits[pod].tokens, hits[pod].mode) for pod in hits} == {
            pod: (16 * (2 + number % 5), Mode.APPROX if number % 3 else Mode.EXACT) for number, pod in enumerate(PODS)
        }
    index.drop(PODS[0])
    index.change(Cache(PODS[0], 32), KEYS, ())
    assert {*index.hits(chains)} == {*PODS[1:]}
