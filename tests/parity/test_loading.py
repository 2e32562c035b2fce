"""What `transformers` 5 does beyond tokenizer.json, on the real vocabularies whose files need it.

The expected ids are a real vLLM's.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from multipick_epp.requests.prompt import Text
from multipick_epp.tokens import Tokenizer, Untokenised
from multipick_epp.tokens.files import read_model

from .models import FAMILIES, Unreachable, make, vocabulary

FAMILY = {family.name: family for family in FAMILIES}


@pytest.fixture(autouse=True)
def usual_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads in a second; the other one has tests of its own."""
    monkeypatch.setitem(sys.modules, "fastokens", None)


def folder(name: str, into: Path, model: dict[str, Any] | None = None, **config: Any) -> Path:
    """A family's folder, with these fields in its configuration files; None takes a field out."""
    try:
        made = make(FAMILY[name], into)
    except Unreachable as away:
        pytest.skip(str(away))
    for file, changes in (("config.json", model or {}), ("tokenizer_config.json", config)):
        fields = json.loads((made / file).read_text()) | changes
        kept = {key: value for key, value in fields.items() if value is not None}
        (made / file).write_text(json.dumps(kept))
    return made


def ids(folder: Path, text: str, special: bool = True) -> list[int]:
    tokenizer = Tokenizer.load(folder)
    found = tokenizer.encode_now(Text(text, special))
    tokenizer.close()
    assert not isinstance(found, Untokenised)
    return list(found)


@pytest.mark.parametrize(
    ("model_type", "named", "rebuilt"),
    [
        ("llama", "LlamaTokenizer", True),
        ("llama", "LlamaTokenizerFast", True),
        ("solar", "LlamaTokenizer", True),
        ("minicpm", "LlamaTokenizer", True),
        ("code_llama", "CodeLlamaTokenizer", True),
        ("llama", "PreTrainedTokenizerFast", False),
        ("mistral", "LlamaTokenizer", False),
        ("phi3", "LlamaTokenizer", False),
        ("internlm2", "LlamaTokenizer", False),
    ],
)
def test_a_llama_tokenizer_has_a_pipeline_of_its_own(
    tmp_path: Path, model_type: str, named: str, rebuilt: bool
) -> None:
    made = folder("Llama-2 class", tmp_path, {"model_type": model_type}, tokenizer_class=named, legacy=None)
    wanted = [1, 28705, 5374] if rebuilt else [1, 259, 5374]
    assert ids(made, "  leading") == wanted


def test_a_llama_tokenizer_may_put_no_space_before_a_text(tmp_path: Path) -> None:
    made = folder("Llama-2 class", tmp_path, add_prefix_space=False)
    with_space = folder("Llama-2 class", tmp_path / "other")
    assert ids(made, " leading") == ids(with_space, "leading")


def test_the_values_of_named_special_tokens_are_the_tokens(tmp_path: Path) -> None:
    made = folder("Gemma 3", tmp_path)
    files = read_model(made)
    assert files.special_tokens["image_token"] == "<image_soft_token>"
    assert files.backend.token_to_id("image_token") is None
    assert len(ids(made, "<image_soft_token>", special=False)) == 1


def test_tokens_that_only_the_configuration_has_are_split_off_texts(tmp_path: Path) -> None:
    decoder = json.loads((folder("Qwen3", tmp_path) / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    decoder["151700"] = {"content": "<|brand-new|>", "lstrip": False, "rstrip": True, "special": True}
    made = folder("Qwen3", tmp_path, added_tokens_decoder=decoder)
    a, b = ids(made, "a"), ids(made, "b")
    assert ids(made, "a<|brand-new|>  b") == [*a, len(read_model(made).backend.get_vocab()) - 1, *b]


def test_flags_of_the_configuration_win(tmp_path: Path) -> None:
    config = json.loads((folder("Qwen3", tmp_path) / "tokenizer_config.json").read_text())
    decoder = config["added_tokens_decoder"]
    [end] = [id_ for id_, token in decoder.items() if token["content"] == "<|im_end|>"]
    before = ids(folder("Qwen3", tmp_path), "a<|im_end|>  b")
    decoder[end] |= {"rstrip": True}
    made = folder("Qwen3", tmp_path, {"model_type": "glm4_moe"}, added_tokens_decoder=decoder)
    assert len(before) > 3
    assert ids(made, "a<|im_end|>  b") == [*ids(made, "a"), int(end), *ids(made, "b")]


def test_harmony_needs_the_vocabulary_of_gpt_oss(tmp_path: Path) -> None:
    made = folder("gpt-oss", tmp_path)
    assert Tokenizer.load(made).paths["chats"] == "harmony"  # type: ignore[index]
    try:
        shutil.copy(vocabulary("qwen3") / "tokenizer.json", made / "tokenizer.json")
    except Unreachable as away:
        pytest.skip(str(away))
    with pytest.raises(ValueError, match="not that of gpt-oss"):
        Tokenizer.load(made)
