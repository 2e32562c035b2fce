"""Who writes the chats of a model: its chat template, or code of the engine's own.

A model whose chats vLLM writes by code is never given to a template, which makes other ids. Where that code can be
had, it runs here, in a module a family; else such chats go to the engine. The rules are vLLM 0.32's
(`config/model.py`, `tokenizers/registry.py`, `renderers/registry.py`).
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer as Backend

from multipick_epp.requests.prompt import Chat
from multipick_epp.tokens.fast import Encode
from multipick_epp.tokens.segments import Ids, Segment
from multipick_epp.tokens.settings import EngineSettings, TokenizerMode


class Family(StrEnum):
    """What writes a model's chats."""

    TEMPLATE = "template"
    HARMONY = "harmony"
    MISTRAL = "mistral-common"
    ENGINE = "engine"


_HARMONY = "gpt_oss"
_BY_ENGINE = frozenset({
    "DeepseekV32ForCausalLM", "DeepseekV4ForCausalLM", "DeepseekV4ForConditionalGeneration",
    "DeepseekV41ForCausalLM", "InklingForCausalLM", "InklingForConditionalGeneration",
    "KimiK3ForConditionalGeneration",
})  # fmt: skip
"""Architectures whose chats vLLM 0.32 writes by code of its own, of which nothing runs here."""


class Chats(Protocol):
    """Writes the chats of one family."""

    cuts: Mapping[Segment, Ids]
    """Segments whose ids are always known."""

    def segments(self, chat: Chat) -> list[Segment]:
        """The chat in pieces whose ids, one after the other, are its ids. In any thread. Raises NoText."""

    def owns(self, segment: Segment) -> bool:
        """Whether `tokenise` is for it."""

    def tokenise(self, segments: Sequence[Segment]) -> dict[Segment, Ids]:
        """Their ids. In any thread. Raises NoText."""


def family_of(config: Mapping[str, Any]) -> Family:
    """By the model's config.json and files."""
    if config.get("model_type") == _HARMONY or "GptOssForCausalLM" in (config.get("architectures") or ()):
        return Family.HARMONY
    by_engine = not _BY_ENGINE.isdisjoint(config.get("architectures") or ())
    return Family.ENGINE if by_engine else Family.TEMPLATE


def tokenizer_file(folder: Path, mode: TokenizerMode) -> Path | None:
    """What makes the ids of the model's texts; None where the folder has no such file."""
    usual = folder / "tokenizer.json"
    return own_tokenizer(folder, mode) or (usual if usual.is_file() else None)


def own_tokenizer(folder: Path, mode: TokenizerMode) -> Path | None:
    """Mistral's own file, where it makes the ids of the model's texts and chats, and not tokenizer.json.

    The engine takes it where the weights are in Mistral's own files, too, or when it is told to. A folder without
    weights doesn't tell; there it is most likely.
    """
    files = [*folder.glob("tekken.json"), *sorted(folder.glob("tokenizer.model.v*"), reverse=True)]
    if not files or mode == "hf":
        return None
    weights = [path.name for path in folder.glob("*.safetensors")]
    own = mode == "mistral" or not weights or any(name.startswith("consolidated") for name in weights)
    return files[0] if own else None


def chats_of(family: Family, backend: Backend, encode: Encode, settings: EngineSettings) -> Chats | None:
    """The family's own code; None where there is none. `encode`: how the ids of texts are made.

    Raises ValueError where the tokenizer is another one.
    """
    if family is Family.HARMONY:
        # Only here, for it takes 60 MB and half a second.
        from multipick_epp.tokens.harmony import Harmony

        return Harmony(backend, encode, settings)
    return None
