"""A model's folder -> its tokenizer, templates and special tokens, read as Hugging Face's `transformers` 5.19 does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Regex
from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, Sequence, Split
from tokenizers.processors import TemplateProcessing

from multipick_epp.tokens.families import Family, family_of
from multipick_epp.tokens.pipelines import EXTRA_BY_DEFAULT, NAMED_BY_DEFAULT, rebuilt
from multipick_epp.tokens.special_tokens import SpecialTokens, read_special_tokens
from multipick_epp.tokens.tokenizer_class import AS_FILED, tokenizer_class


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What the folder holds."""

    backend: Backend
    templates: Mapping[str, str]  # by name; the usual one is "default"
    special_tokens: Mapping[str, str]  # `bos_token` and so on: variables for the template
    family: Family  # what writes its chats: the templates, or not


def read_model(folder: Path) -> ModelFiles:
    """Raises OSError where tokenizer.json is missing, ValueError where a file is not what it should be."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    model = _read_object(folder / "config.json")
    config = _read_object(folder / "tokenizer_config.json")
    filed = _read_object(path)
    name = tokenizer_class(model, config)
    special = read_special_tokens(
        folder, config, filed.get("added_tokens") or (), NAMED_BY_DEFAULT.get(name, {}), EXTRA_BY_DEFAULT.get(name, ())
    )
    if name == AS_FILED:
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises the bare class
            raise ValueError(f"{path} is not a tokenizer: {error}") from error
    else:
        backend = rebuilt(name, filed, config, special.texts)
    backend.no_truncation()  # the engine cuts at the model's context, or refuses
    backend.no_padding()
    _add_tokens(backend, name, special)
    _correct(backend, name, model, config, special)
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    return ModelFiles(backend, _templates(folder, config), special.texts, family_of(model))


def _add_tokens(backend: Backend, name: str, special: SpecialTokens) -> None:
    """Those that the files list, with their flags; then special ones that are not among them."""
    backend.add_tokens(list(special.added))
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token in special.all_special:
        if token.content not in known:
            known.add(token.content)
            token.special = True
            backend.add_tokens([token])
    if name in ("Qwen2Tokenizer", "Qwen3_5Tokenizer"):
        backend.add_tokens([AddedToken(token.content, special=True) for token in special.all_special])


def _correct(
    backend: Backend, name: str, model: Mapping[str, Any], config: Mapping[str, Any], special: SpecialTokens
) -> None:
    """What `transformers` changes once a tokenizer is built."""
    bos = special.texts.get("bos_token")
    if name == "CodeLlamaTokenizer" and bos is not None:
        id_ = backend.token_to_id(bos)
        backend.post_processor = TemplateProcessing(single=f"{bos}:0 $A:0", special_tokens=[(bos, id_)])
    elif name == "GPTNeoXTokenizer":
        backend.post_processor = TemplateProcessing(single="$A:0", special_tokens=[])
    if config.get("fix_mistral_regex") is True and _has_mistral_regex(backend, model):
        split = Split(Regex(_MISTRAL_SPLIT), "isolated")
        now = backend.pre_tokenizer
        if isinstance(now, Sequence):
            now[0] = split
            backend.pre_tokenizer = now
        else:
            metaspace = isinstance(now, Metaspace)
            backend.pre_tokenizer = Sequence(
                [split, ByteLevel(add_prefix_space=False, use_regex=False) if metaspace else now]
            )


_MISTRAL_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}"
    r"\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _has_mistral_regex(backend: Backend, model: Mapping[str, Any]) -> bool:
    """Whether the wish to correct it is followed: of files that an older `transformers` wrote of a Mistral model."""
    if not model or backend.get_vocab_size() <= 100_000 or backend.pre_tokenizer is None:
        return False
    version = str(model.get("transformers_version") or "")
    if not version:
        return True
    old = version.startswith(("0.", "1.", "2.", "3.", "4."))
    return old and model.get("model_type") in ("mistral", "mistral3", "voxtral", "ministral", "pixtral", None)


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from error


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
