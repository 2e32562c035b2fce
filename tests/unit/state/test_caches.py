"""A lane leads to the endpoint whose caches it is now, however often it was named before."""

from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import MANY, MASKS_AT_MOST, Caches
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.lanes import Lanes
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode

KEYS = [BlockKey(key) for key in range(1, 10)]
PODS = [Endpoint(f"pod-{number}:1") for number in range(2 * MANY)]


def pool() -> tuple[Lanes, Caches]:
    lanes = Lanes()
    caches = Caches(lanes, {})
    for pod in PODS:
        caches.assign(Cache(pod, 16), taken(lanes, pod))
    return lanes, caches


def taken(lanes: Lanes, pod: Endpoint) -> int:
    bit = lanes.take(pod)
    assert bit is not None
    return bit


def test_lanes_are_named_anew_when_one_of_them_is_anothers() -> None:
    lanes, caches = pool()
    everybody = (1 << len(PODS)) - 1
    assert [*caches.endpoints_of(everybody)] == [*caches.endpoints_of(everybody)] == PODS
    bit = caches.forget(Cache(PODS[3], 16))
    assert bit == 8
    lanes.release(bit)
    lanes.free(bit)
    assert [*caches.endpoints_of(everybody & ~8)] == PODS[:3] + PODS[4:]
    caches.assign(Cache(Endpoint("new:1"), 16), taken(lanes, Endpoint("new:1")))
    assert [*caches.endpoints_of(everybody)] == [*PODS[:3], "new:1", *PODS[4:]]


def test_any_number_of_lanes_is_named_right() -> None:
    _, caches = pool()
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
        assert {pod: (tokens, index.mode(pod)) for pod, tokens in index.hits(chains).items()} == {
            pod: (16 * (2 + number % 5), Mode.APPROX if number % 3 else Mode.EXACT) for number, pod in enumerate(PODS)
        }
    index.drop(PODS[0])
    index.change(Cache(PODS[0], 32), KEYS, ())
    assert {*index.hits(chains)} == {*PODS[1:]}
