"""Models whose tokens are not what their tokenizer.json and chat template say, since the engine knows better."""

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex
from tokenizers import Tokenizer as Backend
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def apply_class(backend: Backend, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> None:
    """What `transformers` 5 changes in the tokenizer of a model of type "qwen2" whose files name another class.

    It takes that for an error, loads the class `Qwen2Tokenizer`, and this brings its own normaliser and split.
    """
    named = str(tokenizer_config.get("tokenizer_class") or "").removesuffix("Fast")
    if config.get("model_type") != "qwen2" or named in ("", "Qwen2Tokenizer"):
        return
    split: list[PreTokenizer] = [
        Split(Regex(_QWEN2_SPLIT), "isolated"),
        ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    backend.normalizer = NFC()
    backend.pre_tokenizer = Sequence(split)
