"""The special and added tokens that a model's files name, as `transformers` 5 reads them.

tokenizer.json alone does not tell them: tokens that only tokenizer_config.json has are split off texts too, and its
flags (`lstrip`, `rstrip`, `normalized`) win over tokenizer.json's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What the files name, with what the tokenizer's class has by default."""

    named: Mapping[str, AddedToken]  # `bos_token` and so on; standard names first
    extra: tuple[AddedToken, ...]
    added: tuple[AddedToken, ...]  # all tokens that the files list, by their ids

    @property
    def texts(self) -> dict[str, str]:
        """The named ones, as the chat template gets them."""
        return {name: str(token.content) for name, token in self.named.items()}

    @property
    def all_special(self) -> Iterable[AddedToken]:
        """Named and extra."""
        return (*self.named.values(), *self.extra)


def read_special_tokens(
    folder: Path,
    config: Mapping[str, Any],
    filed: Iterable[Mapping[str, Any]],
    default_named: Mapping[str, str],
    default_extra: Iterable[str],
) -> SpecialTokens:
    """`filed`: the added tokens of tokenizer.json. Raises OSError, or ValueError for files that are not what they
    should be.
    """
    tokens = {**default_named, **config}
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, Mapping):
        by_id = {int(id_): _token(token) for id_, token in decoder.items()}
    else:
        legacy = _read(folder / "special_tokens_map.json")
        tokens |= legacy
        special = {text for name in (*_NAMED, "extra_special_tokens") for text in _texts(tokens.get(name))}
        by_id = {
            int(id_): AddedToken(text, special=text in special, normalized=text not in special)
            for text, id_ in _read(folder / "added_tokens.json").items()
        }
        by_id |= {int(token["id"]): _token(token) for token in filed}
    added = tuple(token for _, token in sorted(by_id.items()) if token is not None)
    known = {token.content: token for token in added}
    extra = tokens.get("extra_special_tokens") or tokens.get("additional_special_tokens") or ()
    model_specific = {name: token for name, token in tokens.items() if name.endswith("_token") and name not in _NAMED}
    if isinstance(extra, Mapping):
        model_specific |= extra  # its keys are names
        extra = ()
    named = {
        name: _special(tokens.get(name), known) for name in (*_NAMED, *(n for n in model_specific if n not in _NAMED))
    }
    named |= {name: _special(token, known) for name, token in model_specific.items()}
    return SpecialTokens(
        {name: token for name, token in named.items() if token is not None},
        tuple(token for token in (_special(each, known) for each in (*extra, *default_extra)) if token is not None),
        added,
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def _texts(value: Any) -> Iterable[str]:
    for each in value if isinstance(value, list) else [value]:
        token = _token(each)
        if token is not None:
            yield str(token.content)


def _special(value: Any, known: Mapping[str, AddedToken]) -> AddedToken | None:
    """The token, with the flags of the list of added tokens where it is there."""
    token = _token(value)
    return None if token is None else known.get(str(token.content), token)


def _token(value: Any) -> AddedToken | None:
    """A token is its text, or an object with it in `content`, and flags."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        return None
    return AddedToken(value["content"], **{flag: value[flag] for flag in _FLAGS if isinstance(value.get(flag), bool)})
