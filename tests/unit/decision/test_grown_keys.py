"""Keys of prompts that grew are those of the whole prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.blocks import block_keys, root_key
from multipick_epp.decision.grown_keys import STRIDE_TOKENS, GrownKeys
from multipick_epp.types import BlockKey

ROOTS = (root_key(b"", "m"), root_key(b"", "m", "adapter"))
EXTRAS: tuple[dict[int, bytes], ...] = ({}, {0: b"salt"}, {0: b"pepper"}, {3: b"image", 100: b"other"})


def keys_of(
    grown: GrownKeys, root: BlockKey, ids: Sequence[int], size: int, extras: Mapping[int, bytes]
) -> list[BlockKey]:
    begun = grown.begin(root, ids, size, extras)
    keys = begun.keys()
    grown.keep(begun, keys)
    return keys


def test_only_what_follows_the_known_strides_is_left() -> None:
    grown, ids = GrownKeys(1_000_000), [*range(3 * STRIDE_TOKENS + 100)]
    assert grown.begin(ROOTS[0], ids, 16, {}).left == len(ids)
    keys_of(grown, ROOTS[0], ids, 16, {})
    assert grown.begin(ROOTS[0], [*ids, 1, 2], 16, {}).left == 102
    assert grown.begin(ROOTS[0], [*ids[:2_000], 7], 16, {}).left == 2_001 - STRIDE_TOKENS
    assert grown.begin(ROOTS[1], ids, 16, {}).left == len(ids)
    assert grown.begin(ROOTS[0], ids, 16, {0: b"salt"}).left == len(ids)
    assert grown.begin(ROOTS[0], ids, 32, {}).left == len(ids)


PROMPTS = st.tuples(
    st.integers(0, 3 * STRIDE_TOKENS),
    st.integers(0, 2),
    st.sampled_from(ROOTS),
    st.sampled_from([1, 16, 48, 1_024, 2_000]),
    st.sampled_from(EXTRAS),
)


@given(st.lists(PROMPTS, max_size=12))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_whatever_was_asked_before_the_keys_are_those_of_the_whole_prompt(asked: list[Any]) -> None:
    grown = GrownKeys(1_000_000)
    for length, kind, root, size, extras in asked:
        ids = [*range(length), *([kind] * length)]
        assert keys_of(grown, root, ids, size, extras) == block_keys(root, ids, size, extras)


@pytest.mark.parametrize("ids", [[-1], [2**32], ["a"], [1.5]])
def test_what_is_no_token_id_is_refused(ids: list[int]) -> None:
    with pytest.raises((OverflowError, TypeError)):
        GrownKeys(1_000).begin(ROOTS[0], ids, 1, {})
