"""A block key stands for the block and everything before it, and for whose cache it may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipick_epp.blocks import KEY_MASK, Chains, block_keys, child_key, encode_extra, root_key, token_bytes

ROOT = root_key(b"secret", "model")
IDS = list(range(100, 164))


def test_a_key_is_the_same_in_every_process_and_release() -> None:
    """A golden value: pickers of different versions share one index."""
    assert block_keys(root_key(b"", "m"), [1, 2, 3, 4], 2) == [939467691920411282, 1128070206082550471]


def test_only_full_blocks_have_keys() -> None:
    assert len(block_keys(ROOT, IDS[:31], 16)) == 1
    assert block_keys(ROOT, IDS[:15], 16) == []


def test_keys_have_60_bits() -> None:
    assert all(0 <= key <= KEY_MASK for key in block_keys(ROOT, IDS, 1))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40), st.integers(1, 9), st.integers(0, 40))
def test_equal_prefixes_have_equal_keys_and_others_differ(ids: list[int], size: int, cut: int) -> None:
    keys = block_keys(ROOT, ids, size)
    same = block_keys(ROOT, [*ids[:cut], 7, 8, 9], size)
    for index in range(min(cut, len(ids)) // size):
        assert same[index] == keys[index]
    assert len(set(keys)) == len(keys)


def test_a_changed_token_changes_all_keys_from_there_on() -> None:
    changed = block_keys(ROOT, [*IDS[:20], 1, *IDS[21:]], 16)
    keys = block_keys(ROOT, IDS, 16)
    assert [a == b for a, b in zip(keys, changed, strict=True)] == [True, False, False, False]


def test_the_chain_goes_on_from_a_parents_key() -> None:
    keys = block_keys(ROOT, IDS, 16)
    assert child_key(keys[1], token_bytes(IDS[32:48])) == keys[2]
    assert block_keys(keys[1], IDS[32:], 16) == keys[2:]


def test_nothing_is_shared_across_secrets_models_adapters_and_salts() -> None:
    roots = [ROOT, root_key(b"other", "model"), root_key(b"secret", "other"), root_key(b"secret", "model", "adapter")]
    firsts = {block_keys(root, IDS, 16)[-1] for root in roots}
    firsts.add(block_keys(ROOT, IDS, 16, {0: encode_extra(["salt"])})[-1])
    assert len(firsts) == 5


def test_a_root_can_not_be_forged_by_moving_bytes_between_its_parts() -> None:
    assert root_key(b"a", "bc") != root_key(b"ab", "c")
    assert root_key(b"", "m", None) != root_key(b"", "m", "")


def test_extras_belong_to_their_block() -> None:
    keys = block_keys(ROOT, IDS, 16)
    extra = block_keys(ROOT, IDS, 16, {2: encode_extra([["image", 3]])})
    assert [a == b for a, b in zip(keys, extra, strict=True)] == [True, True, False, False]
    assert encode_extra([]) == b""


@pytest.mark.parametrize("ids", [[-1], [1 << 32], ["a"], [1.5]])
def test_what_is_no_token_id_is_refused(ids: list[int]) -> None:
    with pytest.raises((OverflowError, TypeError)):
        token_bytes(ids)


@pytest.mark.parametrize(("tokens", "usable"), [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2)])
def test_the_last_prompt_token_is_always_computed(tokens: int, usable: int) -> None:
    assert Chains(tokens).usable(16) == usable


def test_a_block_longer_than_the_prompt_has_no_key_however_long_it_is() -> None:
    assert block_keys(root_key(b"", "m"), [1, 2, 3], 4) == block_keys(root_key(b"", "m"), [1, 2, 3], 10**40) == []
