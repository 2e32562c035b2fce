"""A text that is cut at special tokens has the ids of the whole text, or it is not cut."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.tokens.files import read_model
from multipick_epp.tokens.segments import First, Segment, Segmenter, agrees
from tokenizers import AddedToken, Tokenizer

from .backends import SPECIALS, byte_level, metaspace, prepending

TINY = read_model(Path(__file__).parents[2] / "fixtures/tiny-model").backend
TINY_SPECIALS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")

BACKENDS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "a space before the first word": lambda: metaspace("first"),
    "a space before each word group": lambda: metaspace("always"),
    "no space added": lambda: metaspace("never"),
    "a space put there by the normaliser": prepending,
}


def cut_ids(segmenter: Segmenter, text: str) -> list[int]:
    pieces = segmenter.split(text)
    found = segmenter.tokenise([piece for piece in pieces if piece not in segmenter.cuts]) | {**segmenter.cuts}
    return memoryview(b"".join(found[piece] for piece in pieces)).cast("I").tolist()


def whole_ids(backend: Tokenizer, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def texts_with(specials: tuple[str, ...]) -> st.SearchStrategy[str]:
    near = st.sampled_from([" ", "\n", "<", "<|", "|>", "[", "]", "user\n", "1", "é", "\u0301", "\u200d", "the dog"])
    return st.lists(st.sampled_from(specials) | near | st.text(max_size=8), max_size=12).map("".join)


def test_the_fixture_models_texts_keep_their_ids() -> None:
    segmenter = Segmenter(TINY, TINY_SPECIALS)

    @given(texts_with(TINY_SPECIALS))
    @settings(deadline=None, derandomize=True, max_examples=200)
    def keeps_ids(text: str) -> None:
        assert cut_ids(segmenter, text) == whole_ids(TINY, text)

    keeps_ids()


@pytest.mark.parametrize("kind", BACKENDS)
def test_tokenizers_of_all_kinds_keep_their_ids(kind: str) -> None:
    backend = BACKENDS[kind]()
    segmenter = Segmenter(backend, SPECIALS)
    assert set(segmenter.cuts) == set(SPECIALS)
    assert agrees(backend, segmenter)

    @given(texts_with(SPECIALS))
    @settings(deadline=None, derandomize=True, max_examples=60)
    def keeps_ids(text: str) -> None:
        assert cut_ids(segmenter, text) == whole_ids(backend, text)

    keeps_ids()


def test_without_the_token_before_it_a_segment_would_have_other_ids() -> None:
    """Why segments are not tokenised on their own: this tokenizer puts a space at the start of a text."""
    backend = metaspace("first")
    assert whole_ids(backend, "[INST]the dog")[1:] != whole_ids(backend, "the dog")


def test_a_tokenizer_without_fixed_ids_does_not_agree() -> None:
    backend = byte_level(dropout=0.5)
    assert not agrees(backend, Segmenter(backend, SPECIALS))


class Shifting(Segmenter):
    """Stands for a tokenizer that looks across its special tokens."""

    def split(self, text: str, start: int = 0) -> list[Segment]:
        return super().split(text.replace(" [INST]", "[INST] "), start)


def test_a_tokenizer_that_looks_across_special_tokens_does_not_agree() -> None:
    backend = byte_level()
    assert not agrees(backend, Shifting(backend, SPECIALS))


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("<x>", lstrip=True, special=True),
        AddedToken("<x>", rstrip=True, special=True),
        AddedToken("<x>", single_word=True, special=True),
        AddedToken("<x>", normalized=True),
    ],
)
def test_tokens_that_take_from_their_sides_are_no_cuts(token: AddedToken) -> None:
    backend = byte_level(specials=["<s>", token])
    segmenter = Segmenter(backend, ["<s>", "<x>"])
    assert set(segmenter.cuts) == {"<s>"}
    assert cut_ids(segmenter, "a  <x>  b<s> <x>c") == whole_ids(backend, "a  <x>  b<s> <x>c")


@pytest.mark.parametrize(
    ("other", "clean"),
    [
        ("<x>y", False),  # longer: wins over <x>
        ("a<x>", False),  # begins earlier, and covers it
        ("b<", False),  # begins earlier, and takes its first character
        ("x", True),  # inside: begins later
        (">z", True),  # begins later
        ("<", True),  # begins at the same place, but is shorter
    ],
)
def test_a_token_that_another_can_hide_is_no_cut(other: str, clean: bool) -> None:
    backend = byte_level(specials=["<x>", other])
    segmenter = Segmenter(backend, ["<x>"])
    assert ("<x>" in segmenter.cuts) is clean
    for text in ("<x>", "<x>y", "a<x>", "b<x>", "<x>z", "<<x>>z<x>y b<x>a<x>x<x", "ab<x>yz"):
        assert cut_ids(segmenter, text) == whole_ids(backend, text)


def test_a_text_falls_into_segments_and_cuts() -> None:
    segmenter = Segmenter(TINY, TINY_SPECIALS)
    start, end = TINY_SPECIALS[:2]
    assert segmenter.split(f"a{start}b{end}{end}c") == [First("a"), start, "b", end, end, "c"]
    assert segmenter.split(f"{start}a") == [start, "a"]
    assert segmenter.split("a") == [First("a")]
    assert segmenter.split("") == []


def test_nothing_is_cut_where_the_tokenizer_takes_special_tokens_for_text() -> None:
    backend = byte_level()
    backend.encode_special_tokens = True
    segmenter = Segmenter(backend, SPECIALS)
    assert segmenter.split("[INST]a") == [First("[INST]a")]
    assert cut_ids(segmenter, "[INST]a</s>") == whole_ids(backend, "[INST]a</s>")
