"""The tokenizers that `transformers` 5 builds anew, of tokenizer.json's vocabulary and a pipeline of their class.

Each class is written here as it would stand in a tokenizer.json (`models/*/tokenization_*.py`).
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer as Backend

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN3_5_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

NAMED_BY_DEFAULT: Mapping[str, Mapping[str, str]] = {
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    "Qwen3_5Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    "GemmaTokenizer": {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    "CohereTokenizer": {
        "bos_token": "<BOS_TOKEN>",
        "eos_token": "<|END_OF_TURN_TOKEN|>",
        "unk_token": "<UNK>",
        "sep_token": "<SEP>",
        "pad_token": "<PAD>",
        "cls_token": "<CLS>",
        "mask_token": "<MASK_TOKEN>",
    },
    "GPT2Tokenizer": dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    "GPTNeoXTokenizer": {
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
        "pad_token": "<|padding|>",
    },
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "CodeLlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
}
"""The special tokens that a class has where its files don't say otherwise."""

EXTRA_BY_DEFAULT: Mapping[str, tuple[str, ...]] = {
    "CodeLlamaTokenizer": ("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>", "<FILL_ME>")
}


def rebuilt(name: str, filed: Mapping[str, Any], config: Mapping[str, Any], special: Mapping[str, str]) -> Backend:
    """The tokenizer of class `name`, without added tokens.

    `filed` is tokenizer.json, `special` are the named special tokens. Raises ValueError for a vocabulary of another
    kind than the class has.
    """
    model = filed.get("model")
    if not isinstance(model, Mapping) or "merges" not in model:
        raise ValueError(f"tokenizer.json has no vocabulary for a {name}")
    options, normalizer, pre_tokenizer = _pipeline(name, config, special)
    bpe = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **options,
        "vocab": model["vocab"],
        "merges": model["merges"],
    }
    written: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": filed.get("post_processor"),
        "decoder": None,
        "model": bpe,
    }
    try:
        return Backend.from_str(json.dumps(written))
    except Exception as error:  # the library raises the bare class
        raise ValueError(f"tokenizer.json has no vocabulary for a {name}: {error}") from error


_Parts = tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]


def _pipeline(name: str, config: Mapping[str, Any], special: Mapping[str, str]) -> _Parts:
    """Options of the model, normalizer, pre-tokenizer."""
    spaced = config.get("add_prefix_space")
    match name:
        case "LlamaTokenizer" | "CodeLlamaTokenizer":
            options: dict[str, Any] = {"fuse_unk": True, "byte_fallback": True}
            if name == "CodeLlamaTokenizer":
                options["unk_token"] = special.get("unk_token")
            legacy = name == "LlamaTokenizer" and bool(config.get("legacy", False))
            scheme = "never" if spaced is False else "always" if legacy else "first"
            return options, None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        case "GemmaTokenizer":
            options = {"fuse_unk": True, "byte_fallback": True, "unk_token": special.get("unk_token")}
            normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
            return options, normalizer, _split({"String": " "}, "MergedWithPrevious")
        case "Qwen2Tokenizer" | "Qwen3_5Tokenizer":
            regex = _QWEN2_SPLIT if name == "Qwen2Tokenizer" else _QWEN3_5_SPLIT
            pieces = [_split({"Regex": regex}, "Isolated"), _byte_level(bool(spaced), use_regex=False)]
            return {}, {"type": "NFC"}, {"type": "Sequence", "pretokenizers": pieces}
        case "CohereTokenizer":
            pieces = [{"type": "Digits", "individual_digits": True}, _byte_level(bool(spaced))]
            return {}, {"type": "NFC"}, {"type": "Sequence", "pretokenizers": pieces}
        case "GPTNeoXTokenizer":
            return {}, {"type": "NFC"}, _byte_level(bool(spaced))
        case "GPT2Tokenizer":
            return {}, None, _byte_level(bool(spaced))
    raise ValueError(f"no tokenizer of class {name} is known")


def _split(pattern: Mapping[str, str], behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}


def _byte_level(add_prefix_space: bool, use_regex: bool = True) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }
