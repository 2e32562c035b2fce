"""A model's folder -> its tokenizer, templates and special tokens, read as Hugging Face's `transformers` 5 does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from multipick_epp.tokens.families import Family, family_of
from multipick_epp.tokens.model_quirks import apply_class

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What the folder holds."""

    backend: Backend
    templates: Mapping[str, str]  # by name; the usual one is "default"; none where the engine doesn't use them
    special_tokens: Mapping[str, str]  # `bos_token` and so on: variables for the template
    family: Family


def read_model(folder: Path) -> ModelFiles:
    """Raises OSError where tokenizer.json is missing, ValueError where a file is not what it should be."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises the bare class
        raise ValueError(f"{path} is not a tokenizer: {error}") from error
    backend.no_truncation()  # the engine cuts at the model's context, or refuses
    backend.no_padding()
    model = _read_object(folder / "config.json")
    config = _read_object(folder / "tokenizer_config.json")
    apply_class(backend, model, config)
    special = _special_tokens(folder, config)
    _add_missing(backend, config, special)
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    family = family_of(folder, model)
    templates = _templates(folder, config) if family is Family.TEMPLATE else {}
    return ModelFiles(backend, templates, special, family)


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no object")
    return config


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Files win over tokenizer_config.json, which holds one template or a list of named ones.

    `chat_template.json` belongs to the model's processor of images and the like; engines prefer it, but for tools.
    """
    processor = _read_object(folder / "chat_template.json").get("chat_template")
    named = _tokenizer_templates(folder, config)
    return named | {"processor": processor} if isinstance(processor, str) else named


def _tokenizer_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    if (default := folder / "chat_template.jinja").is_file():
        files["default"] = default
    if files:
        return {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    given = config.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    return {entry["name"]: entry["template"] for entry in given or ()}


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens, and any other `*_token` that the config names."""
    tokens = dict(config)
    path = folder / "special_tokens_map.json"
    if path.is_file() and "added_tokens_decoder" not in config:
        tokens |= json.loads(path.read_text(encoding="utf-8"))
    names = [*_NAMED, *(key for key in tokens if key.endswith("_token") and key not in _NAMED)]
    texts = {name: _content(tokens.get(name)) for name in names}
    return {name: text for name, text in texts.items() if text is not None}


def _content(token: Any) -> str | None:
    """A token is its text, or an object with it in `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _add_missing(backend: Backend, config: Mapping[str, Any], special: Mapping[str, str]) -> None:
    """Special tokens that only the config knows are split off the text too."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
    wanted = [*special.values(), *(text for text in map(_content, extra) if text)]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing = [text for text in dict.fromkeys(wanted) if text not in known]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in missing])
