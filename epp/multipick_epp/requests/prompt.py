"""The values that parsing yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Api(StrEnum):
    """The API that the client speaks; it decides how an error looks."""

    CHAT = "openai-chat"
    COMPLETIONS = "openai-completions"
    RESPONSES = "openai-responses"
    EMBEDDINGS = "openai-embeddings"
    MESSAGES = "anthropic-messages"
    GENERATE = "vllm-generate"
    SGLANG_GENERATE = "sglang-generate"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The request brings its token ids."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Text:
    """A completion's prompt: tokenised as it is."""

    text: str
    add_special_tokens: bool = True


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages for the model's chat template, as the engine hands them to it."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template: str | None = None  # the request's own template, where the engine allows one
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


TokenSource = TokenIds | Text | Chat


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's prompt, before tokens."""

    api: Api
    model: str | None  # as the client named it: the base model, an alias or a LoRA adapter; None = the engine's default
    source: TokenSource
    batch: Sequence[TokenSource] = ()  # further prompts of the same request (a completion with a list); often empty
    cache_salt: str | None = None
    multimodal: bool = False  # has images, audio or video: only the text before the first of them can be hashed
    max_tokens: int | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Unread:
    """A body without a prompt that we can read: routed by load, never refused for it."""

    api: Api
    reason: str
