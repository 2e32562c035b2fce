"""A bit leads to the endpoint whose slot it is now, however often its mask was named before."""

from multipick_epp.blocks import Chains
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.protocol import Slot
from multipick_epp.state.slots import MANY, MASKS_AT_MOST, Slots
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode

KEYS = [BlockKey(key) for key in range(1, 10)]
PODS = [Endpoint(f"pod-{number}:1") for number in range(2 * MANY)]


def test_a_mask_is_named_anew_when_one_of_its_bits_is_another_slots() -> None:
    slots = Slots()
    for number, pod in enumerate(PODS):
        slots.assign(Slot(pod, 16), 1 << number)
    everybody = (1 << len(PODS)) - 1
    assert [*slots.endpoints_of(everybody)] == [*slots.endpoints_of(everybody)] == PODS
    slots.forget(Slot(PODS[3], 16))
    assert [*slots.endpoints_of(everybody & ~8)] == PODS[:3] + PODS[4:]
    slots.assign(Slot(Endpoint("new:1"), 16), 8)
    assert [*slots.endpoints_of(everybody)] == [*PODS[:3], "new:1", *PODS[4:]]


def test_any_number_of_masks_is_named_right() -> None:
    slots = Slots()
    for number, pod in enumerate(PODS):
        slots.assign(Slot(pod, 16), 1 << number)
    for _ in range(2):
        for shift in range(3 * MASKS_AT_MOST):
            mask = (1 << len(PODS)) - 1 & ~(shift & 7) & ~((shift >> 3) << 20)
            assert [*slots.endpoints_of(mask)] == [pod for at, pod in enumerate(PODS) if mask >> at & 1]


def test_each_of_many_that_share_a_head_has_its_own_hit() -> None:
    index = LocalIndex({}, StateStats())
    for number, pod in enumerate(PODS):
        index.set_mode(pod, Mode.APPROX if number % 3 else Mode.EXACT)
        index.change(Slot(pod, 16), KEYS[: 2 + number % 5], ())
    chains = Chains(16 * len(KEYS) + 1, {16: KEYS})
    for _ in range(2):
        hits = index.hits(chains)
        assert {pod: (hits[pod].tokens, hits[pod].mode) for pod in hits} == {
            pod: (16 * (2 + number % 5), Mode.APPROX if number % 3 else Mode.EXACT) for number, pod in enumerate(PODS)
        }
    index.drop(PODS[0])
    index.change(Slot(PODS[0], 32), KEYS, ())
    assert {*index.hits(chains)} == {*PODS[1:]}
