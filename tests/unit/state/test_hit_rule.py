"""The hits of all endpoints at once, held to the rule of one endpoint, and that one to the rule's own words."""

from collections.abc import Callable, Mapping, Sequence
from math import lcm

from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.blocks import Chains
from multipick_epp.state.cache import Cache
from multipick_epp.state.caches import GPU, WINDOWS_AT_MOST, is_sliding
from multipick_epp.state.index import LocalIndex
from multipick_epp.state.lookup import SAMPLES
from multipick_epp.state.stats import StateStats
from multipick_epp.types import BlockKey, Endpoint, Mode

Holds = Callable[[BlockKey, int], bool]
"""Whether the cache with this bit holds this key."""


def hit_tokens(
    chains: Chains, caches: Mapping[Cache, int], depth: Mapping[int, int], holds: Holds, weights: Mapping[str, float]
) -> int:
    """The hit of one endpoint.

    `caches` has the bit of each of its caches; `depth` the blocks that a bit holds from the start (absent: none). A
    medium with a weight lends that share of the tokens that it holds beyond the GPU's.
    """
    on_gpu = {cache: bit for cache, bit in caches.items() if cache.medium == GPU}
    tokens = _gpu_tokens(chains, on_gpu, depth, holds) if on_gpu else 0
    best = float(tokens)
    for cache, bit in caches.items():
        weight = weights.get(cache.medium, 0.0)
        if weight and cache.medium != GPU and not is_sliding(cache):
            beyond = max(0, depth.get(bit, 0) * cache.block_size - tokens)
            best = max(best, tokens + weight * beyond)
    return int(best)


def _gpu_tokens(chains: Chains, caches: Mapping[Cache, int], depth: Mapping[int, int], holds: Holds) -> int:
    unit = lcm(*(cache.block_size for cache in caches))
    sliding = [
        (cache, bit, chains.by_size.get(cache.block_size, ())) for cache, bit in caches.items() if is_sliding(cache)
    ]
    tokens = min(
        depth.get(bit, 0) * cache.block_size if not is_sliding(cache) else _chained_tokens(chains, cache)
        for cache, bit in caches.items()
    )
    tokens -= tokens % unit
    settled = False
    while tokens and not settled:
        settled = True
        for cache, bit, keys in sliding:
            end = _last_gap(keys, tokens // cache.block_size, _needed(cache), bit, holds)
            if end is not None:
                tokens = end * cache.block_size
                tokens -= tokens % unit
                settled = False
    return tokens


def _chained_tokens(chains: Chains, cache: Cache) -> int:
    keys = chains.by_size.get(cache.block_size, ())
    return min(chains.usable(cache.block_size), len(keys)) * cache.block_size


def _needed(cache: Cache) -> int:
    return -(-(cache.window - 1) // cache.block_size) if cache.window > 0 else 1


def _last_gap(keys: Sequence[BlockKey], end: int, needed: int, bit: int, holds: Holds) -> int | None:
    """The last of the `needed` blocks before `end` that is missing; None where they are all there."""
    for index in range(end - 1, max(0, end - needed) - 1, -1):
        if not holds(keys[index], bit):
            return index
    return None


POD = Endpoint("pod:8000")
PODS = [Endpoint(f"pod-{number}:8000") for number in range(70)]  # more than lanes of one block
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


SIZES = st.sampled_from([4, 6, 8, 24])
WEIGHTS = {"CPU": 0.5, "DISK": 0.3}
CACHES = st.builds(
    lambda size, medium, kind, window: Cache(POD, size, medium, 0, kind, window),
    SIZES,
    st.sampled_from(["GPU", "GPU", "GPU", "CPU", "DISK", "OTHER"]),
    st.sampled_from(["full_attention", "full_attention", "mamba"]),
    st.sampled_from([0, 0, 1, 9, 20, 1000]),
)
HELD = st.tuples(st.integers(0, TOKENS // 4), st.sets(st.integers(0, TOKENS // 4), max_size=5))
"""What a cache holds: so many blocks of the prompt, less some."""


def positions(held: tuple[int, set[int]]) -> set[int]:
    return set(range(held[0])) - held[1]


def expected_hits(prompt: Chains, held: Mapping[Cache, set[int]]) -> dict[Endpoint, int]:
    """Endpoint by endpoint, by the plain rule."""
    hits = {}
    for pod in {cache.endpoint for cache in held}:
        bits = {cache: 1 << number for number, cache in enumerate(held) if cache.endpoint == pod}
        chain = {bit: prompt.by_size.get(cache.block_size, ()) for cache, bit in bits.items()}
        keys = {bit: {chain[bit][at] for at in held[cache] if at < len(chain[bit])} for cache, bit in bits.items()}
        depth = {
            bit: next((at for at in range(usable) if at not in held[cache]), usable)
            for cache, bit in bits.items()
            if (usable := min(prompt.usable(cache.block_size), len(chain[bit]))) >= 0
        }
        tokens = hit_tokens(prompt, bits, depth, lambda key, bit, keys=keys: key in keys[bit], WEIGHTS)  # type: ignore[misc]
        if tokens:
            hits[pod] = tokens
    return hits


def told(held: Mapping[Cache, set[int]], prompt: Chains) -> LocalIndex:
    index = LocalIndex(WEIGHTS, StateStats())
    for cache, places in held.items():
        chain = prompt.by_size.get(cache.block_size, ())
        index.change(cache, [chain[at] for at in places if at < len(chain)], ())
    return index


@given(
    st.lists(st.lists(st.tuples(CACHES, HELD), min_size=1, max_size=6), min_size=1, max_size=5),
    st.lists(st.integers(0, 4), min_size=5, max_size=5),
    st.sets(SIZES, min_size=2),
    st.integers(1, TOKENS + 1),
    st.data(),
)
def test_all_endpoints_at_once_hit_as_each_by_the_plain_rule(
    kinds: list[list[tuple[Cache, tuple[int, set[int]]]]],
    strides: list[int],
    sizes: set[int],
    length: int,
    data: st.DataObject,
) -> None:
    full = chains(*sizes)
    prompt = Chains(length, {size: keys[: length // size] for size, keys in full.by_size.items()})
    held: dict[Cache, set[int]] = {}
    for number, pod in enumerate(PODS[:: 1 + data.draw(st.integers(0, 30))]):
        kind = kinds[number % len(kinds)]
        for group, (cache, content) in enumerate(kind):
            own = Cache(pod, cache.block_size, cache.medium, group, cache.kind, cache.window)
            held[own] = positions((content[0] + strides[number % 5], content[1]))
    index = told(held, full)
    known = {cache: held[cache] for cache in held if cache in index.caches(cache.endpoint)}
    assert index.hits(prompt) == expected_hits(prompt, known)


def test_endpoints_with_one_cache_each_hit_what_theirs_holds() -> None:
    prompt = chains(8, 16)
    caches = (
        Cache(PODS[0], 8),
        Cache(PODS[1], 16),
        Cache(PODS[2], 8, "CPU"),
        Cache(PODS[3], 8),
        Cache(PODS[4], 8, "X"),
    )
    held = {cache: {*range(count)} for cache, count in zip(caches, (6, 2, 4, 0, 3), strict=True)}
    index = told(held, prompt)
    assert index.hits(prompt) == {PODS[0]: 48, PODS[1]: 32, PODS[2]: int(32 * WEIGHTS["CPU"])}
    assert index.hits(prompt) == expected_hits(prompt, held)


def test_an_endpoint_that_comes_into_anothers_place_has_its_own_hit() -> None:
    prompt = chains(8)
    index = LocalIndex(WEIGHTS, StateStats())
    keys = prompt.by_size[8]
    for pod in PODS:
        index.change(Cache(pod, 8), keys, ())
        index.change(Cache(pod, 8, group=1, kind="sliding_window", window=17), keys[3:6], ())
    index.set_mode(PODS[3], Mode.EXACT)
    index.void(Cache(PODS[5], 8, group=1, kind="sliding_window", window=17))
    index.drop(PODS[3])
    index.change(Cache(POD, 8), keys[:4], ())
    hits = index.hits(prompt)
    assert hits == {pod: 48 for pod in PODS if pod not in PODS[3:6:2]} | {POD: 32}
    assert {*map(index.mode, hits)} == {Mode.BLIND}


def test_windows_beyond_the_bound_are_ignored_for_their_endpoint_alone() -> None:
    prompt = chains(8)
    index = LocalIndex(WEIGHTS, StateStats())
    for pod in PODS[:2]:
        index.change(Cache(pod, 8), prompt.by_size[8], ())
    for group in range(1, 9):
        cache = Cache(PODS[0], 8, group=group, kind="sliding_window", window=8 * group + 1)
        index.change(cache, prompt.by_size[8] if group <= WINDOWS_AT_MOST else (), ())
    assert len(index.caches(PODS[0])) == 1 + WINDOWS_AT_MOST
    assert index.hits(prompt) == dict.fromkeys(PODS[:2], TOKENS)


def test_a_long_way_down_to_the_last_whole_window() -> None:
    keys = [BlockKey(7 * at + 1) for at in range(2000)]
    prompt = Chains(8 * len(keys) + 1, {8: keys})
    assert len(keys) > SAMPLES
    index = LocalIndex({}, StateStats())
    for number, pod in enumerate(PODS):
        index.change(Cache(pod, 8), keys[: 2000 - number], ())
        index.change(Cache(pod, 8, group=1, kind="mamba"), [keys[number]], ())
        index.change(Cache(pod, 8, group=2, kind="sliding_window", window=8 * 20 + 1), keys[:40], ())
    expected = {pod: 8 * (number + 1) for number, pod in enumerate(PODS) if number < 40}
    assert index.hits(prompt) == expected
