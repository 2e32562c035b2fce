"""What the traffic generators rely on: exact token counts, whatever stands beside a text."""

import json
from pathlib import Path

import pytest
from multipick_sim.assets import MODEL_DIR
from multipick_sim.assets.make_tokenizer import write
from multipick_sim.texts import OPENING_WORDS, fixed_text, vocabulary
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    encoded: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return encoded


def test_every_word_is_one_token(tokenizer: Tokenizer) -> None:
    words = vocabulary()
    assert len(set(words)) == len(words) >= 2000
    assert [len(ids(tokenizer, " " + word)) for word in words] == [1] * len(words)
    assert [len(ids(tokenizer, word)) for word in words[:OPENING_WORDS]] == [1] * OPENING_WORDS


@pytest.mark.parametrize("count", [0, 1, 16, 512])
def test_a_text_has_exactly_the_tokens_asked_for(tokenizer: Tokenizer, count: int) -> None:
    assert len(ids(tokenizer, fixed_text(7, count))) == count


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 tokens"):
        fixed_text(0, -1)


def test_a_text_keeps_its_tokens_between_neighbours(tokenizer: Tokenizer) -> None:
    first, second = fixed_text(1, 100), fixed_text(2, 100)
    alone = ids(tokenizer, first) + ids(tokenizer, second)
    assert ids(tokenizer, first + second) == alone
    assert ids(tokenizer, f"user\n{first}{second}<|im_end|>")[2:-1] == alone


def test_a_text_depends_on_its_seed_alone() -> None:
    assert fixed_text(5, 50) == fixed_text(5, 50)
    assert fixed_text(5, 50) != fixed_text(6, 50)
    assert fixed_text(5, 50).startswith(fixed_text(5, 20))


def test_the_committed_tokenizer_is_what_the_script_makes(tmp_path: Path) -> None:
    write(tmp_path)
    made, committed = (json.loads((folder / "tokenizer.json").read_text()) for folder in (tmp_path, MODEL_DIR))
    assert made["model"]["vocab"] == committed["model"]["vocab"]
    assert made["model"]["merges"] == committed["model"]["merges"]
    assert (tmp_path / "tokenizer_config.json").read_text() == (MODEL_DIR / "tokenizer_config.json").read_text()
