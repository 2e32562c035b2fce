"""Of a text that grew only the rest is cut, and its ids are those of the whole text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multipick_epp.requests.base64_data import CUT
from multipick_epp.tokens.files import read_model
from multipick_epp.tokens.grown import GrownTexts
from multipick_epp.tokens.outcome import NoText
from multipick_epp.tokens.segments import Segment, Segmenter, agrees
from tokenizers import Tokenizer

from .backends import SPECIALS, byte_level, metaspace, prepending_words

TINY = read_model(Path(__file__).parents[2] / "fixtures/tiny-model").backend

BACKENDS: dict[str, Callable[[], tuple[Tokenizer, Sequence[str], bool]]] = {
    "the fixture model": lambda: (TINY, ("<|im_start|>", "<|im_end|>"), False),
    "byte level": lambda: (byte_level(), SPECIALS, False),
    "a space before the first word": lambda: (metaspace("first"), SPECIALS, False),
    "a space before each word group": lambda: (metaspace("always"), SPECIALS, False),
    "a space put there by the normaliser": lambda: (prepending_words(), SPECIALS, True),
}


class Counted(Segmenter):
    """Counts the characters that it is asked to cut."""

    cut_chars = 0

    def split(self, text: str, start: int = 0) -> list[Segment]:
        self.cut_chars += len(text) - start
        return super().split(text, start)


def ids_of(grown: GrownTexts, segmenter: Segmenter, text: str) -> list[int]:
    split = grown.split(text)
    found = segmenter.tokenise([each for each in split.segments if each not in segmenter.cuts]) | {**segmenter.cuts}
    return memoryview(grown.join(split, found)).cast("I").tolist()


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("chunk_chars", [1, 8])
@pytest.mark.parametrize("stride", [1, 7, 30])
def test_texts_with_one_beginning_keep_their_ids_wherever_they_part(kind: str, chunk_chars: int, stride: int) -> None:
    backend, specials, adds_space = BACKENDS[kind]()
    segmenter = Segmenter(backend, specials, chunk_chars, adds_space=adds_space)
    assert agrees(backend, segmenter)
    grown = GrownTexts(segmenter, 20_000, stride)
    halves = [piece for special in specials for piece in (special[:1], special[:-1], special[1:])]
    near = st.sampled_from(
        [*specials, *halves, " ", "\n", "the", " dog", " the dog sleeps", "é", "東", "\u0301", "x y"]
    )
    texts = st.lists(near, max_size=30).map("".join)

    @given(texts, st.lists(st.tuples(st.integers(0, 80), texts), min_size=1, max_size=4))
    @settings(deadline=None, derandomize=True, max_examples=12)
    def keeps_ids(text: str, others: list[tuple[int, str]]) -> None:
        for each in [text, *(text[:at] + more for at, more in others), text]:
            assert ids_of(grown, segmenter, each) == backend.encode(each, add_special_tokens=False).ids

    keeps_ids()


def test_only_what_is_behind_the_last_sure_segment_is_cut_again() -> None:
    segmenter = Counted(TINY, ("<|im_start|>", "<|im_end|>"), 100)
    grown = GrownTexts(segmenter, 1_000_000, 500)
    text = "".join(f"<|im_start|>user\nmessage {number} {'of words ' * 30}<|im_end|>\n" for number in range(40))
    ids_of(grown, segmenter, text)
    segmenter.cut_chars = 0
    more = "<|im_start|>assistant\nnew<|im_end|>\n"
    assert ids_of(grown, segmenter, text + more) == TINY.encode(text + more, add_special_tokens=False).ids
    assert len(more) < segmenter.cut_chars < len(more) + 500 + 300


def test_two_that_are_read_at_once_do_not_mix_what_they_know() -> None:
    """One text ends with its stride, where the other's word goes on: they know other starts of segments."""
    segmenter = Segmenter(TINY, ("<|im_end|>",), 5)
    grown = GrownTexts(segmenter, 1_000_000, 20)
    short = "the quick brown foxe"
    long = short + "s and the lazy dogs and all of the others that there are"
    splits = [(text, grown.split(text)) for text in (short, long)]
    for text, split in splits:
        found = segmenter.tokenise([each for each in split.segments if each not in segmenter.cuts])
        ids = memoryview(grown.join(split, found)).cast("I").tolist()
        assert ids == TINY.encode(text, add_special_tokens=False).ids
    for text in (long, short, long + " and more of them", short):
        assert ids_of(grown, segmenter, text) == TINY.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("bad", ["\ud800", CUT])
def test_what_must_not_be_tokenised_is_seen_behind_a_known_beginning_too(bad: str) -> None:
    segmenter = Segmenter(TINY, ("<|im_end|>",), 5)
    grown = GrownTexts(segmenter, 1_000_000, 20)
    text = "the quick brown fox jumps over the lazy dog " * 5
    ids_of(grown, segmenter, text)
    for at in range(len(text)):
        with pytest.raises(NoText):
            grown.split(text[:at] + bad)
        with pytest.raises(NoText):
            grown.split(text[:at] + bad + text[at:])
