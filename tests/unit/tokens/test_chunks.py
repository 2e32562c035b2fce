"""Long texts are cut between words, where that changes no ids, so that a text that grew is known up to its end."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.tokens.chunks import allows_chunks, chunks, spans_words
from multipick_epp.tokens.files import read_model
from multipick_epp.tokens.segments import First, Segmenter, agrees, best_segmenter
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from .backends import CORPUS, SPECIALS, byte_level, metaspace, prepending_words, trained

TINY = read_model(Path(__file__).parents[2] / "fixtures/tiny-model").backend

WORDS = st.sampled_from(["the", "dog", "and", "fox", "2024", "don't", "x=1", "naïve", "東京", "A", "I'm", "\u0301e"])
ODD = st.sampled_from(["<s>", "[INST]", "\n\n", "\t", "(", ")", ".", ",", ""])
TEXTS = st.lists(WORDS | ODD | st.text(max_size=4), max_size=40).map(" ".join)


@given(TEXTS, st.integers(1, 30))
@settings(deadline=None, derandomize=True)
def test_the_chunks_of_a_text_are_the_text(text: str, size: int) -> None:
    parts = chunks(text, size)
    assert "".join(parts) == text
    assert len(parts) == 1 or all(parts)
    for part, following in pairwise(parts):
        assert len(part) >= size
        assert part[-1].isalpha()
        assert following[0] == " "
        assert following[1].isalpha()


@given(TEXTS, TEXTS, st.integers(1, 30))
@settings(deadline=None, derandomize=True)
def test_a_continuation_shares_all_chunks_but_the_last(text: str, more: str, size: int) -> None:
    before, after = chunks(text, size), chunks(text + more, size)
    assert after[: len(before) - 1] == before[:-1]


def test_a_text_without_words_is_one_chunk() -> None:
    for text in ("", "x" * 5_000, " " * 5_000, "東京 " * 2_000, "1 " * 2_000):
        assert chunks(text, 10) == [text]


@pytest.mark.parametrize("make", [byte_level, lambda: metaspace("first"), lambda: metaspace("always")])
def test_tokenizers_of_words_allow_chunks(make: object) -> None:
    assert callable(make)
    assert allows_chunks(make())


def over_words() -> Tokenizer:
    """Learns tokens of several words, as its texts are not split before."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(CORPUS * 5, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    tokenizer.add_special_tokens([*SPECIALS])
    return tokenizer


def test_a_vocabulary_with_tokens_over_words_does_not_allow_chunks() -> None:
    backend = over_words()
    assert not allows_chunks(backend)
    assert not agrees(backend, Segmenter(backend, SPECIALS, chunk_chars=1))
    segmenter = best_segmenter(backend, SPECIALS)
    assert set(segmenter.cuts) == set(SPECIALS)
    assert segmenter.split("the dog " * 1_000) == [First("the dog " * 1_000)]


def test_a_vocabulary_with_a_token_that_ends_behind_a_word_does_not_allow_chunks() -> None:
    assert spans_words(["the", "▁dog", "s▁"])
    assert spans_words(["the", "Ġdog", "of the"])
    assert not spans_words(["the", "▁dog", "▁", "▁▁", ".▁", "e\u0301▁"])


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("the end", normalized=True),
        AddedToken("END", rstrip=True),
        AddedToken("START", lstrip=True),
        AddedToken(" dog"),
        AddedToken("the "),
        AddedToken("fox", single_word=True),
    ],
)
def test_an_added_token_that_can_meet_a_cut_between_words_does_not_allow_chunks(token: AddedToken) -> None:
    assert not allows_chunks(byte_level(specials=["<s>", token]))


def test_a_tokenizer_that_strips_spaces_from_its_texts_is_not_cut_between_words() -> None:
    backend = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Strip())
    assert allows_chunks(backend)
    assert not agrees(backend, Segmenter(backend, SPECIALS, chunk_chars=1))
    assert best_segmenter(backend, SPECIALS).split("the dog " * 1_000) == [First("the dog " * 1_000)]


def test_the_fixture_models_chunks_keep_its_ids() -> None:
    segmenter = Segmenter(TINY, ["<|im_end|>"], chunk_chars=1)

    @given(TEXTS)
    @settings(deadline=None, derandomize=True, max_examples=200)
    def keeps_ids(text: str) -> None:
        found = segmenter.tokenise(segmenter.split(text))
        ids = memoryview(b"".join(found[piece] for piece in segmenter.split(text))).cast("I").tolist()
        assert ids == TINY.encode(text, add_special_tokens=False).ids

    keeps_ids()


ADDING_SPACES = {scheme: partial(metaspace, scheme) for scheme in ("first", "always", "never")}


@pytest.mark.parametrize("make", [*ADDING_SPACES.values(), prepending_words], ids=[*ADDING_SPACES, "normaliser"])
def test_chunks_keep_the_ids_of_tokenizers_that_add_spaces(make: Callable[[], Tokenizer]) -> None:
    backend = make()
    segmenter = best_segmenter(backend, SPECIALS)
    text = "[INST]" + "the quick brown fox jumps " * 200 + "[/INST]" + "a lazy dog " * 200
    pieces = segmenter.split(text)
    assert len(pieces) > 6
    found = segmenter.tokenise([piece for piece in pieces if piece not in segmenter.cuts]) | {**segmenter.cuts}
    ids = memoryview(b"".join(found[piece] for piece in pieces)).cast("I").tolist()
    assert ids == backend.encode(text, add_special_tokens=False).ids
