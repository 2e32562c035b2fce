"""Keys of prompts that grew are those of the whole prompt."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.blocks import block_keys, root_key
from multipick_epp.decision.grown_keys import STRIDE_TOKENS, GrownKeys

ROOTS = [root_key(b"", "m"), root_key(b"", "m", "adapter")]
EXTRAS = [{}, {0: b"salt"}, {0: b"pepper"}, {3: b"image", 100: b"other"}]


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
        assert grown.keys(root, ids, size, extras) == block_keys(root, ids, size, extras)


@pytest.mark.parametrize("ids", [[-1], [2**32], ["a"], [1.5]])
def test_what_is_no_token_id_is_refused(ids: list[int]) -> None:
    with pytest.raises((OverflowError, TypeError)):
        GrownKeys(1_000).keys(ROOTS[0], ids, 1, {})
