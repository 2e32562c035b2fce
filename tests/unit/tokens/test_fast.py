"""The faster library is used where its ids are the right ones, and only there."""

import pytest
from multipick_epp.tokens import fast
from multipick_epp.tokens.fast import encode_of
from tokenizers import Tokenizer

from .backends import byte_level, metaspace

TEXTS = ["def f(x):\n    return x + 1  # naïve 東京", "  leading", "", "<s> the quick</s> brown"]


def ids(backend: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [backend.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("backend", [byte_level(), metaspace("first")], ids=["byte level", "metaspace"])
def test_ids_are_right_whoever_makes_them(backend: Tokenizer) -> None:
    assert encode_of(backend)(TEXTS) == ids(backend, TEXTS)


def test_a_library_that_makes_other_ids_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(fast._Fastokens):
        def __call__(self, texts: object) -> list[list[int]]:
            return [[7] for _ in texts]  # type: ignore[attr-defined]

    monkeypatch.setattr(fast, "_Fastokens", Other)
    assert encode_of(byte_level()).name == "tokenizers"


def test_a_library_that_is_not_there_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fastokens", None)
    assert encode_of(byte_level()).name == "tokenizers"


def test_special_tokens_that_are_plain_text_are_left_to_the_usual_library() -> None:
    backend = byte_level()
    backend.encode_special_tokens = True
    assert encode_of(backend).name == "tokenizers"
    assert encode_of(backend)(TEXTS) == ids(backend, TEXTS)
