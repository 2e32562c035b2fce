"""The hit of an endpoint with several groups and mediums, held to the rule's own words."""

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.blocks import Chains
from multipick_epp.state.hit import hit_tokens
from multipick_epp.state.protocol import Cache
from multipick_epp.types import BlockKey, Endpoint

POD = Endpoint("pod:8000")
TOKENS = 96


def chains(*sizes: int) -> Chains:
    return Chains(TOKENS + 1, {size: [BlockKey(1000 * size + i) for i in range(TOKENS // size)] for size in sizes})


def hit(prompt: Chains, held: dict[Cache, set[int]], weights: dict[str, float] | None = None) -> int:
    """`held`: positions of the chain of the cache's block size."""
    bits = {cache: 1 << index for index, cache in enumerate(held)}
    keys = {bit: {prompt.by_size[cache.block_size][i] for i in held[cache]} for cache, bit in bits.items()}
    depth = {
        bit: next(i for i in range(TOKENS + 1) if i not in held[cache])
        for cache, bit in bits.items()
    }  # fmt: skip
    return hit_tokens(prompt, bits, depth, lambda key, bit: key in keys[bit], weights or {})


def by_the_words(held: dict[Cache, set[int]], size: int) -> int:
    """The longest L with all of it in every full group, and its last ceil((window - 1) / size) blocks in the others."""
    for length in range(TOKENS // size, 0, -1):
        full = all(set(range(length)) <= p for cache, p in held.items() if not cache.window)
        windows = all(
            set(range(max(0, length - -(-(cache.window - 1) // size)), length)) <= p
            for cache, p in held.items()
            if cache.window
        )
        if full and windows:
            return length * size
    return 0


POSITIONS = st.sets(st.integers(0, TOKENS // 8 - 1)) | st.integers(0, TOKENS // 8).map(lambda n: set(range(n)))


@given(st.lists(POSITIONS, min_size=1, max_size=2), st.lists(st.tuples(st.integers(1, 40), POSITIONS), max_size=3))
def test_hybrid_models_hit_as_the_rule_says(full: list[set[int]], sliding: list[tuple[int, set[int]]]) -> None:
    held = {Cache(POD, 8, group=group): positions for group, positions in enumerate(full)}
    for group, (window, positions) in enumerate(sliding, start=len(full)):
        held[Cache(POD, 8, group=group, kind="sliding_window", window=window)] = positions
    assert hit(chains(8), held) == by_the_words(held, 8)


def test_mamba_needs_the_state_at_the_end_of_the_hit() -> None:
    full, mamba = Cache(POD, 8), Cache(POD, 8, group=1, kind="mamba")
    assert hit(chains(8), {full: set(range(6)), mamba: {3}}) == 32
    assert hit(chains(8), {full: set(range(6)), mamba: {7}}) == 0


def test_groups_with_different_block_sizes_meet_at_multiples_of_both() -> None:
    small, large = Cache(POD, 8), Cache(POD, 24, group=1)
    assert hit(chains(8, 24), {small: set(range(8)), large: set(range(4))}) == 48
    assert hit(chains(8, 24), {small: set(range(2)), large: set(range(4))}) == 0


def test_a_group_whose_chain_the_prompt_lacks_cannot_hit() -> None:
    prompt = chains(8)
    bits = {Cache(POD, 8): 1, Cache(POD, 16, group=1): 2, Cache(POD, 32, group=2, kind="sliding_window", window=9): 4}
    assert hit_tokens(prompt, bits, {1: 12}, lambda key, bit: True, {}) == 0
    del bits[Cache(POD, 16, group=1)]
    assert hit_tokens(prompt, bits, {1: 12}, lambda key, bit: True, {}) == 0


def test_another_medium_lends_its_weight_to_what_it_holds_beyond_the_gpu() -> None:
    gpu, host, disk = Cache(POD, 8), Cache(POD, 8, medium="CPU"), Cache(POD, 8, medium="STORAGE")
    held = {gpu: set(range(2)), host: set(range(7)), disk: set(range(12))}
    assert hit(chains(8), held) == 16
    assert hit(chains(8), held, {"CPU": 0.5}) == 16 + 20
    assert hit(chains(8), held, {"CPU": 0.5, "STORAGE": 0.1}) == 36
    assert hit(chains(8), {host: set(range(7))}, {"CPU": 0.5}) == 28
